package testbed

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// childAttributes lets no child outlive this process, not even if a test times out and nothing is cleaned up. A user other
// than 0 is who the child is.
func childAttributes(user int) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if user != 0 {
		a.Credential = &syscall.Credential{Uid: uint32(user), Gid: uint32(user)}
	}
	return a
}

// endLeftovers kills the processes whose arguments name a file below dir, such as the shims that containerd starts
// apart from itself so that they outlive it. Nobody else's process can name one: dir's name is random.
func endLeftovers(dir string) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != os.Getpid() {
			errs = append(errs, endIfNaming(pid, []byte(dir+"/")))
		}
	}
	return errors.Join(errs...)
}

// endIfNaming kills process pid if its arguments contain name. The handle is taken before the arguments are read: a
// later process that is given the same number is another handle.
func endIfNaming(pid int, name []byte) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return nil // ended meanwhile
	}
	defer p.Release()
	args, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil || !bytes.Contains(args, name) {
		return nil
	}
	if err := p.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("ending process %d: %w", pid, err)
	}
	return nil
}

// unmountBelow undoes the mounts at and below dir, the innermost first. Lazily, for what still uses one has been
// killed and is gone in a moment.
func unmountBelow(dir string) error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var points []string
	for line := range strings.Lines(string(table)) {
		// Field 5 is the mount point; ours hold no characters that the kernel would escape.
		f := strings.Fields(line)
		if len(f) > 4 && strings.HasPrefix(f[4]+"/", dir+"/") {
			points = append(points, f[4])
		}
	}
	slices.Reverse(points)
	var errs []error
	for _, p := range points {
		// EINVAL: it went with the one that was mounted over it.
		if err := syscall.Unmount(p, syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
			errs = append(errs, fmt.Errorf("unmounting %s: %w", p, err))
		}
	}
	return errors.Join(errs...)
}
