package testbed

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Spent is the processor time that each process of a running program has taken so far, by process id. Programs such as
// nginx are several processes.
type Spent map[int]time.Duration

// Since is what was spent after before. A process that has ended in between is not counted: those measured here keep theirs.
func (s Spent) Since(before Spent) time.Duration {
	var sum time.Duration
	for pid, spent := range s {
		sum += spent - before[pid]
	}
	return sum
}

// Spent is user and system time together, as the kernel accounts for it: to the nanosecond, where /proc/<pid>/stat has
// hundredths of a second.
func (p *Process) Spent() (Spent, error) {
	pids, err := p.tree()
	if err != nil {
		return nil, err
	}
	spent := Spent{}
	for _, pid := range pids {
		var t unix.Timespec
		// Linux makes the clock of another process from its id: the complement, and 2 for all that its threads ran.
		err := unix.ClockGettime(int32(^pid<<3|2), &t)
		if errors.Is(err, unix.EINVAL) {
			continue // ended meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("processor time of %s: %w", p.name, err)
		}
		spent[pid] = time.Duration(t.Nano())
	}
	return spent, nil
}

// ForgetPeak lets [Process.PeakMemory] begin anew.
func (p *Process) ForgetPeak() error {
	pids, err := p.tree()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		file := fmt.Sprintf("/proc/%d/clear_refs", pid)
		if err := os.WriteFile(file, []byte("5"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("peak memory of %s: %w", p.name, err)
		}
	}
	return nil
}

// PeakMemory is the most memory that each process of the program has had resident so far, added up, in bytes. What they
// share is counted as often as they are.
func (p *Process) PeakMemory() (int64, error) { return p.memory("VmHWM:") }

// Memory is what the processes of the program have resident, added up, in bytes.
func (p *Process) Memory() (int64, error) { return p.memory("VmRSS:") }

func (p *Process) memory(what string) (int64, error) {
	pids, err := p.tree()
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if errors.Is(err, os.ErrNotExist) {
			continue // ended meanwhile
		}
		if err != nil {
			return 0, fmt.Errorf("memory of %s: %w", p.name, err)
		}
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == what && f[2] == "kB" {
				n, err := strconv.ParseInt(f[1], 10, 64)
				if err != nil {
					return 0, fmt.Errorf("memory of %s: %w", p.name, err)
				}
				sum += n << 10
			}
		}
	}
	if sum == 0 {
		return 0, fmt.Errorf("memory of %s: no %s of it is known", p.name, what)
	}
	return sum, nil
}

// tree returns the ids of the process and of all that descend from it.
func (p *Process) tree() ([]int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // ended meanwhile
		}
		// pid (name) state parent …: the name may hold anything.
		stat := string(text)
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
		if err != nil || len(f) < 2 {
			return nil, fmt.Errorf("%s can't be read: %q", file, stat)
		}
		parent, err := strconv.Atoi(f[1])
		if err != nil {
			return nil, fmt.Errorf("%s can't be read: %q", file, stat)
		}
		children[parent] = append(children[parent], pid)
	}
	return descend(p.cmd.Process.Pid, children), nil
}

// descend returns pid and its descendants.
func descend(pid int, children map[int][]int) []int {
	all := []int{pid}
	for _, child := range children[pid] {
		all = append(all, descend(child, children)...)
	}
	return all
}
