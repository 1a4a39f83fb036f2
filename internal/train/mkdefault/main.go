// SPDX-License-Identifier: Apache-2.0

// Command mkdefault makes the model that comes with the program: `make models`.
// It takes some minutes; the same sources give the same file.
package main

import (
	"compress/gzip"
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/train"
)

func main() {
	out := flag.String("out", "internal/detect/models/default.ubj.gz", "file to write")
	flag.Parse()
	if err := run(*out); err != nil {
		fmt.Fprintln(os.Stderr, "mkdefault:", err)
		os.Exit(1)
	}
}

func run(out string) error {
	begin := time.Now()
	recipe := train.Default()
	recipe.Progress = func(format string, args ...any) {
		fmt.Printf("%4.0f s  %s\n", time.Since(begin).Seconds(), fmt.Sprintf(format, args...))
	}
	trees, err := recipe.Train(context.Background())
	if err != nil {
		return err
	}
	f, err := os.Create(out)
	if err != nil {
		return fmt.Errorf("write the model: %w", err)
	}
	defer f.Close()
	packed, err := gzip.NewWriterLevel(f, gzip.BestCompression)
	if err != nil {
		return fmt.Errorf("pack the model: %w", err)
	}
	if err := trees.WriteUBJ(packed); err != nil {
		return fmt.Errorf("write %s: %w", out, err)
	}
	if err := packed.Close(); err != nil {
		return fmt.Errorf("write %s: %w", out, err)
	}
	return f.Close()
}
