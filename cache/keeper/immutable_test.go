package keeper

import (
	"os"

	"golang.org/x/sys/unix"
)

func immutable(path string, is bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	const fl = 0x10
	if is {
		flags |= fl
	} else {
		flags &^= fl
	}
	return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags)
}
