//go:build !linux

package testbed

import "syscall"

func childAttributes(int) *syscall.SysProcAttr { return nil }

// No container engine runs here, only the demonstration's own two processes.
func endLeftovers(string) error { return nil }

func unmountBelow(string) error { return nil }
