package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progress tells people how far something is. Its methods may be called concurrently.
type progress interface {
	at(done, total int64) // bytes
	end()
}

// newProgress draws a bar on a terminal, and writes lines elsewhere.
func newProgress(w io.Writer) progress {
	if isTerminal(w) {
		return &bar{w: w}
	}
	return &lines{w: w, last: time.Now()}
}

type bar struct {
	w  io.Writer
	mu sync.Mutex
	// guards following
	bar *progressbar.ProgressBar // nil: it has not begun
}

func (b *bar) at(done, total int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bar == nil {
		b.bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(b.w), progressbar.OptionSetDescription("verifying"),
			progressbar.OptionShowBytes(true), progressbar.OptionUseIECUnits(true), progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionFullWidth(), progressbar.OptionClearOnFinish(), progressbar.OptionSetPredictTime(true))
	}
	_ = b.bar.Set64(done) // a terminal that is gone is no reason to stop
}

func (b *bar) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bar != nil {
		_ = b.bar.Clear()
	}
}

// lineEvery is how often a line says how far it is, where nobody looks on: a log of a night stays readable.
const lineEvery = 10 * time.Second

type lines struct {
	w  io.Writer
	mu sync.Mutex
	// guards following
	last time.Time
}

func (l *lines) at(done, total int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(l.last) >= lineEvery {
		l.last = now
		fmt.Fprintf(l.w, "verified %s of %s %s\n", bytesText(done), bytesText(total), gauge(done, max(1, total)))
	}
}

func (l *lines) end() {}
