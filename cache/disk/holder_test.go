package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestLockedDirectoryIsSaidToBeInUseByWhom(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // waits for nobody
	_, err = Open(ctx, Options{Dir: dir})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Errorf("locked: %v", err)
	}
	// What the kernel does not tell of this file system or container is no failure of ours; that it names somebody else would be.
	if who := holder(s.lock); who != "another process" && !strings.HasPrefix(who, fmt.Sprintf("process %d (", os.Getpid())) {
		t.Errorf("the holder is %s, and we are %d", who, os.Getpid())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(ctx, Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
