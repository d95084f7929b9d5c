package keeper

import (
	"errors"
	"io/fs"
	"sync"
	"syscall"

	"go.uber.org/zap"
)

// What may be wrong with a disk, in words for operators.
const (
	full     = "the disk is full"
	readOnly = "the data directory is read-only"
	denied   = "the data directory may not be written to"
	failing  = "the disk fails"
)

// health is whether the disk takes content. The zero value is a disk that does.
type health struct {
	mu sync.Mutex
	// guards following
	trouble string // what is wrong; empty: nothing
}

// Trouble takes down that something could not be kept, with that error, and reports whether that is the disk's fault: the log is told
// once then, however much can't be kept. That the cap is reached is no trouble, nor is nil.
func (k *Keeper) Trouble(err error) (is bool) {
	what := troubleOf(err)
	if what != "" {
		k.health.change(k.health.now(), what, err, k.log)
	}
	return what != ""
}

// Troubled reports whether the disk is in trouble.
func (k *Keeper) Troubled() bool { return k.health.now() != "" }

func troubleOf(err error) string {
	var number syscall.Errno
	switch {
	case !errors.As(err, &number):
		return ""
	case number == syscall.ENOSPC, number == syscall.EDQUOT:
		return full
	case number == syscall.EROFS:
		return readOnly
	case errors.Is(err, fs.ErrPermission):
		return denied
	}
	return failing
}

// examine finds out whether a disk that was in trouble takes content again, and whether others have filled it.
func (k *Keeper) examine() {
	was, what, err := k.health.now(), "", error(nil)
	if was != "" {
		err = k.disk.Probe()
		what = troubleOf(err)
	}
	if what == "" && k.disk.Crowded() {
		what = full
	}
	k.health.change(was, what, err, k.log)
}

// change says that one thing is wrong where another was, and tells the log. If somebody has found out otherwise meanwhile, that holds.
func (h *health) change(was, what string, err error, log *zap.Logger) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.trouble != was || what == was {
		return
	}
	h.trouble = what
	switch what {
	case "":
		log.Info("the disk takes content again", zap.String("was", was))
	default:
		log.Error("degraded: "+what+"; what can't be kept is passed on, and what is kept is served", zap.Error(err))
	}
}

// now is what is wrong; empty: nothing.
func (h *health) now() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.trouble
}
