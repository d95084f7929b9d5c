package e2e

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// TestDataDirectoryOnSmallFileSystems runs those tests of the data directory that mount file systems of their own: full ones, ones without
// inodes, read-only ones. What they mount nobody else sees.
func TestDataDirectoryOnSmallFileSystems(t *testing.T) {
	cmd := exec.CommandContext(running, "go", "test", "-count=1", "-tags=rooted", "-run=^TestRooted", "./cache/disk")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "GOWORK=off")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
