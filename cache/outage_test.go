package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/upstream"
)

// warm runs a test with an image under the tags 1 and 2 that is kept, whole, and upstream's word on it an hour old.
func warm(t *testing.T, opts Options, test func(t *testing.T, s *shelf, r *reader, image ocispec.Descriptor)) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		image := s.image("app", 1)
		s.tag("1", image)
		s.tag("2", image)
		r := newReader(t, s, opts)
		r.tag("1")
		r.tag("2")
		r.blob("app config")
		r.blob("app layer 0")
		<-time.After(time.Hour)
		s.asked()
		test(t, s, r, image)
	})
}

// tag gets a tag, and tells how.
func (r *reader) tag(tag string) Verdict {
	r.t.Helper()
	m, err := r.Manifest(r.t.Context(), testRepo, Reference{Tag: tag}, Accept{}, false)
	if err != nil {
		r.t.Fatal(err)
	}
	return m.Verdict
}

// expectStale gets a tag, which is to be stale for a reason and for an age, and to take so long.
func (r *reader) expectStale(tag string, why error, age, took time.Duration) {
	r.t.Helper()
	start := time.Now()
	v := r.tag(tag)
	if v.Outcome != Stale || why != nil && !errors.Is(v.Cause, why) || v.Age != age+took || time.Since(start) != took {
		r.t.Errorf("%v (%v) of age %v after %v", v.Outcome, v.Cause, v.Age, time.Since(start))
	}
}

func TestNobodyWaitsForWhoIsDown(t *testing.T) {
	warm(t, Options{}, func(t *testing.T, s *shelf, r *reader, image ocispec.Descriptor) {
		s.down.Store(true)
		for _, tag := range []string{"1", "2", "1"} {
			r.expectStale(tag, errDown, time.Hour, 0)
		}
		if how := r.get(image); how != Hit {
			t.Errorf("by digest: %v", how)
		}
		expectAsked(t, s)
		s.down.Store(false)
		if how := r.tag("1").Outcome; how != Revalidated {
			t.Errorf("the moment that it is back: %v", how)
		}
	})
}

func TestSlowCheckIsWaitedForOnce(t *testing.T) {
	patience := 3 * time.Second
	warm(t, Options{RevalidateTimeout: func() time.Duration { return patience }}, func(t *testing.T, s *shelf, r *reader, _ ocispec.Descriptor) {
		release := s.hold("HEAD")
		r.expectStale("1", errSlow, time.Hour, patience)
		r.expectStale("1", errSlow, time.Hour+patience, 0)
		r.expectStale("2", errSlow, time.Hour+patience, 0)
		expectAsked(t, s, "HEAD 1") // which is the probe
		release()
		synctest.Wait()
		if how := r.tag("1").Outcome; how != Hit {
			t.Errorf("after the check has ended: %v", how)
		}
		if how := r.tag("2").Outcome; how != Revalidated {
			t.Errorf("the other tag: %v", how)
		}
	})
}

// TestCheckThatFailsLateIsFollowedByAnother is about a probe that ends without an answer.
func TestCheckThatFailsLateIsFollowedByAnother(t *testing.T) {
	warm(t, Options{}, func(t *testing.T, s *shelf, r *reader, _ ocispec.Descriptor) {
		s.fail(func(ctx context.Context, _ string) error {
			select {
			case <-time.After(10 * time.Second):
			case <-ctx.Done():
			}
			return &upstream.Error{Status: 500}
		})
		r.expectStale("1", errSlow, time.Hour, 2*time.Second)
		<-time.After(9 * time.Second)
		s.asked()
		s.fail(nil)
		if how := r.tag("2").Outcome; how != Revalidated {
			t.Errorf("%v", how)
		}
	})
}

func TestFailedRequestKeepsNobodyFromAsking(t *testing.T) {
	warm(t, Options{}, func(t *testing.T, s *shelf, r *reader, _ ocispec.Descriptor) {
		s.refuse("HEAD", 503)
		r.expectStale("1", nil, time.Hour, 0)
		s.fail(nil)
		if how := r.tag("1").Outcome; how != Revalidated {
			t.Errorf("%v", how)
		}
	})
}

func TestPromiseAnswersStartInTime(t *testing.T) {
	warm(t, Options{}, func(t *testing.T, s *shelf, r *reader, _ ocispec.Descriptor) {
		s.put("3", "3", ocispec.MediaTypeImageManifest, `{"layers":[]}`)
		s.put("", "lone", "x/y", "lone")
		release := s.hold("")
		d := digest.FromString("lone")
		for what, ask := range map[string]func() error{
			"tag": func() error {
				_, err := r.Manifest(t.Context(), testRepo, Reference{Tag: "3"}, Accept{}, false)
				return err
			},
			"digest": func() error {
				_, err := r.Manifest(t.Context(), testRepo, Reference{Digest: d}, Accept{}, true)
				return err
			},
			"blob":      func() error { _, err := r.Blob(t.Context(), testRepo, d, Whole); return err },
			"blob HEAD": func() error { _, _, err := r.StatBlob(t.Context(), testRepo, d); return err },
		} {
			start := time.Now()
			if err := ask(); !errors.Is(err, ErrUnavailable) || time.Since(start) != startWithin {
				t.Errorf("%s: %v after %v", what, err, time.Since(start))
			}
		}
		release()
		r.blob("lone")
	})
}

// TestBlobOutlivesTheTimeToStart reads one for longer than its answer had to start.
func TestBlobOutlivesTheTimeToStart(t *testing.T) {
	warm(t, Options{}, func(t *testing.T, s *shelf, r *reader, _ ocispec.Descriptor) {
		s.put("", "lone", "x/y", "lone")
		s.bodies = make(chan struct{})
		time.AfterFunc(time.Minute, func() { close(s.bodies) })
		r.blob("lone")
	})
}

func TestTagsAreFreshByTheirPattern(t *testing.T) {
	ttl := func(_ Repository, tag string) time.Duration {
		return map[string]time.Duration{"1": 24 * time.Hour, "2": time.Minute}[tag]
	}
	warm(t, Options{TagTTL: ttl}, func(t *testing.T, s *shelf, r *reader, _ ocispec.Descriptor) {
		if v := r.tag("1"); v.Outcome != Hit || v.TTL != 23*time.Hour {
			t.Errorf("%+v", v)
		}
		if v := r.tag("2"); v.Outcome != Revalidated || v.TTL != time.Minute {
			t.Errorf("%+v", v)
		}
	})
}

func TestClockThatIsSetBackMakesNothingEternal(t *testing.T) {
	var back atomic.Int64
	now := func() time.Time { return time.Now().Add(-time.Duration(back.Load())) }
	warm(t, Options{Now: now}, func(t *testing.T, s *shelf, r *reader, _ ocispec.Descriptor) {
		r.tag("1")
		missing := Reference{Tag: "missing"}
		r.Manifest(t.Context(), testRepo, missing, Accept{}, false)
		s.asked()
		back.Store(int64(365 * 24 * time.Hour))
		if how := r.tag("1").Outcome; how != Revalidated {
			t.Errorf("%v", how)
		}
		r.Manifest(t.Context(), testRepo, missing, Accept{}, false)
		expectAsked(t, s, "HEAD 1", "GET ")
		s.hold("")
		<-time.After(time.Hour)
		back.Add(int64(48 * time.Hour))
		if v := r.tag("1"); v.Outcome != Stale || v.Age != 0 {
			t.Errorf("%+v", v)
		}
	})
}

func TestDeletedTagIsFollowedOrKept(t *testing.T) {
	for _, keep := range []bool{false, true} {
		for _, status := range []int{404, 410, 403, 401} {
			t.Run(fmt.Sprint(keep, status), func(t *testing.T) {
				warm(t, Options{KeepDeleted: func(string) bool { return keep }}, func(t *testing.T, s *shelf, r *reader, image ocispec.Descriptor) {
					s.refuse(" 1", status)
					if !keep || status < 404 {
						_, err := r.Manifest(t.Context(), testRepo, Reference{Tag: "1"}, Accept{}, false)
						if e, ok := errors.AsType[*upstream.Error](err); !ok || e.Status != status {
							t.Error(err)
						}
						s.down.Store(true)
						s.refuse("", 0)
						if _, err := r.Manifest(t.Context(), testRepo, Reference{Tag: "1"}, Accept{}, false); err == nil {
							t.Error("an outage brings back what is forgotten")
						}
						return
					}
					r.expectStale("1", nil, time.Hour, 0)
					s.asked()
					<-time.After(59 * time.Minute)
					r.expectStale("1", ErrRemembered, time.Hour+59*time.Minute, 0)
					expectAsked(t, s)
					<-time.After(time.Minute)
					r.expectStale("1", nil, 2*time.Hour, 0)
					if asked := s.asked(); !strings.Contains(asked, "HEAD 1") {
						t.Errorf("not asked again: %s", asked)
					}
					s.fail(nil)
					s.tag("1", s.image("other", 0)) // it is pushed again
					<-time.After(time.Hour)
					if how := r.tag("1").Outcome; how != Miss {
						t.Errorf("pushed again: %v", how)
					}
					r.expectFresh("1")
				})
			})
		}
	}
}

func (r *reader) expectFresh(tag string) {
	r.t.Helper()
	if how := r.tag(tag).Outcome; how != Hit {
		r.t.Errorf("%s: %v", tag, how)
	}
}

// TestManifestIsRefusedWhereBlobsCantBeHad: manifests go on being served by upstream, which its blobs' storage is gone behind.
func TestManifestIsRefusedWhereBlobsCantBeHad(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *shelf, r *reader, _, image ocispec.Descriptor) {
		r.get(image)
		s.blobless.Store(true)
		if _, err := r.Manifest(t.Context(), testRepo, Reference{Digest: image.Digest}, Accept{}, false); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%v", err)
		}
		s.blobless.Store(false)
		if got := r.get(image); got != Hit {
			t.Errorf("%v", got)
		}
	})
}
