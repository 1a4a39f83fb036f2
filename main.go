// SPDX-License-Identifier: Apache-2.0

// Sentinel-X keeps a Linux host reachable under a DDoS attack: it drops floods
// in the network driver (XDP). Run `sentinel-x --help`.
package main

import (
	"os"

	"github.com/sentinel-x/sentinel-x/internal/cli"
)

func main() { os.Exit(cli.Main()) }
