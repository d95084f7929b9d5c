package main

import (
	"bytes"
	"errors"
	"testing"

	"github.com/entrepot/entrepot/config"
)

// flaky fails its first write, as a file does on a disk that is full for a moment.
type flaky struct {
	bytes.Buffer
	failed bool
}

func (f *flaky) Write(b []byte) (int, error) {
	if !f.failed {
		f.failed = true
		return 0, errors.New("no space left on device")
	}
	return f.Buffer.Write(b)
}

// TestLogGoesOnAfterAFailedWrite: one line may be lost, not all that follow.
func TestLogGoesOnAfterAFailedWrite(t *testing.T) {
	w := &flaky{}
	log, _, stop := newLogger(config.Log{Level: "info", Format: "json"}, w)
	log.Warn("lost")
	log.Warn("second")
	log.Warn("third")
	err := stop()
	if !bytes.Contains(w.Bytes(), []byte("third")) {
		t.Errorf("written after the disk had room again: %q; stop: %v", w.String(), err)
	}
}
