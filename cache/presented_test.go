package cache

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/upstream"
)

// TestNobodyIsRefusedWhatAnotherPresented has two clients ask for the same at a time: the one with a header that upstream does not
// take any more, the other with one that it takes.
func TestNobodyIsRefusedWhatAnotherPresented(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *shelf, r *reader, _, _ ocispec.Descriptor) {
		ended, good := upstream.WithAuthorization(t.Context(), "Bearer ended"), upstream.WithAuthorization(t.Context(), "Bearer good")
		open := make(chan struct{})
		s.fail(func(ctx context.Context, _ string) error {
			<-open
			if upstream.PresentedIn(ctx) == upstream.PresentedIn(ended) {
				return &upstream.Error{Status: 401}
			}
			return nil
		})
		get := func(ctx context.Context) <-chan error {
			done := make(chan error, 1)
			go func() {
				_, err := r.Manifest(ctx, testRepo, Reference{Tag: "1"}, Accept{}, false)
				done <- err
			}()
			synctest.Wait()
			return done
		}
		first, second := get(ended), get(good)
		close(open)
		if err := <-first; !isAnswer(err) {
			t.Errorf("with a token that has ended: %v", err)
		}
		if err := <-second; err != nil {
			t.Errorf("with one that is good: %v", err)
		}
	})
}

// TestRefusalOfWhatOnePresentedForgetsNothing has a tag that others know, and upstream is gone after it has refused one of them.
func TestRefusalOfWhatOnePresentedForgetsNothing(t *testing.T) {
	warm(t, Options{}, func(t *testing.T, s *shelf, r *reader, _ ocispec.Descriptor) {
		s.refuse("", 401)
		_, err := r.Manifest(upstream.WithAuthorization(t.Context(), "Bearer ended"), testRepo, Reference{Tag: "1"}, Accept{}, false)
		if !isAnswer(err) {
			t.Fatal(err)
		}
		s.down.Store(true)
		s.refuse("", 0)
		r.expectStale("1", errDown, time.Hour, 0)
	})
}
