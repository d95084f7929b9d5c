package disk

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrLocked says that another process has the data directory open.
var ErrLocked = errors.New("in use")

// inUse is ErrLocked with who it is that has the lock.
func inUse(lock *os.File) error {
	return fmt.Errorf("%w by %s: stop it, or choose another directory", ErrLocked, holder(lock))
}

// holder names the process that holds the lock on a file, as far as the kernel tells: it knows nothing of a process in another
// container, and on some file systems of none.
func holder(f *os.File) string {
	const unknown = "another process"
	var st unix.Stat_t
	if err := onDescriptor(f, func(fd int) error { return unix.Fstat(fd, &st) }); err != nil {
		return unknown
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return unknown
	}
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for line := range strings.Lines(string(locks)) {
		var id, kind, how, what, at string
		var pid int
		if n, _ := fmt.Sscan(line, &id, &kind, &how, &what, &pid, &at); n < 6 || kind != "FLOCK" || at != file || pid <= 0 {
			continue // also those who wait for it, whose line has an arrow more
		}
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err != nil {
			return fmt.Sprintf("process %d", pid)
		}
		return fmt.Sprintf("process %d (%s)", pid, strings.TrimSpace(string(name)))
	}
	return unknown
}
