// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sentinel-x/sentinel-x/internal/engine"
)

// runModel runs one command line and returns its exit status and its output.
func runModel(args ...string) (status int, out, errOut string) {
	var stdout, stderr bytes.Buffer
	status = Run(context.Background(), append([]string{"model"}, args...), strings.NewReader(""), &stdout, &stderr)
	return status, stdout.String(), stderr.String()
}

// A file that is no model fails with what is wrong, in JSON too; a directory is asked for where it is needed.
func TestModelCommands(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.json")
	if err := os.WriteFile(bad, []byte(`{"learner":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _, errOut := runModel("verify", bad); status != ExitFailed || !strings.Contains(errOut, bad+": read model") {
		t.Errorf("verify: %d, %s", status, errOut)
	}
	status, out, _ := runModel("verify", bad, "--json")
	var check engine.ModelCheck
	if err := json.Unmarshal([]byte(out), &check); err != nil || status != ExitFailed || check.OK || !strings.Contains(check.Error, "read model") {
		t.Errorf("verify --json: %d, %v, %s", status, err, out)
	}
	for _, command := range [][]string{{"import", bad}, {"rollback"}} {
		if status, _, errOut := runModel(command...); status != ExitUsage || !strings.Contains(errOut, "--model-dir") {
			t.Errorf("%s without a directory: %d, %s", command[0], status, errOut)
		}
	}
	if status, out, errOut := runModel("show"); status != ExitOK || !strings.Contains(out, "built in") || !strings.Contains(out, "syn_flood") {
		t.Errorf("show: %d, %s%s", status, out, errOut)
	}
}
