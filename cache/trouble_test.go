package cache

import (
	"context"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/upstream"
)

// TestUpstreamsTroubleIsNotTheDisks: upstream's connection is refused in the middle of a pull.
func TestUpstreamsTroubleIsNotTheDisks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		r := newReader(t, s, Options{})
		r.get(s.image("image", 1))
		s.fail(func(context.Context, string) error {
			return &upstream.Error{Err: &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}}
		})
		b, err := r.Blob(t.Context(), testRepo, digest.FromString("image layer 0"), Whole)
		if err == nil {
			_, err = io.ReadAll(b.Content)
			b.Close()
		}
		if err == nil {
			t.Error("upstream is down")
		}
		synctest.Wait()
		if d := r.Stats().Degraded; len(d) > 0 {
			t.Errorf("degraded: %v", d)
		}
	})
}
