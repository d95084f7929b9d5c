package cache

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// bubble runs a test with a shelf that has an index of three images under the tag 1.
func bubble(t *testing.T, opts Options, test func(t *testing.T, s *shelf, r *reader, index, image ocispec.Descriptor)) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		image := s.image(here, 4)
		index := s.index("index", s.image("linux/other", 1), image, s.image("windows/"+runtime.GOARCH, 1))
		s.tag("1", index)
		test(t, s, newReader(t, s, opts), index, image)
	})
}

func TestReadAheadByMode(t *testing.T) {
	manifest, config := "GET "+here, "GET "+here+" config"
	for mode, want := range map[ReadAhead][3][]string{ // after the tag's HEAD, the index's GET, the image's GET
		ReadNothing:   {{"HEAD 1"}, {"GET index"}, {manifest}},
		ReadManifests: {{"GET 1"}, {manifest}, {}},
		ReadConfig:    {{"GET 1"}, {manifest, config}, {}},
		ReadLayers: {{"GET 1"}, {manifest, config, "GET " + here + " layer 0", "GET " + here + " layer 1",
			"GET " + here + " layer 2", "GET " + here + " layer 3"}, {}},
	} {
		t.Run(fmt.Sprint(mode), func(t *testing.T) {
			bubble(t, Options{ReadAhead: mode}, func(t *testing.T, s *shelf, r *reader, index, image ocispec.Descriptor) {
				r.head("1")
				expectAsked(t, s, want[0]...)
				r.get(index)
				expectAsked(t, s, want[1]...)
				r.get(image)
				expectAsked(t, s, want[2]...)
			})
		})
	}
}

func TestHeadAloneReadsNothingAhead(t *testing.T) {
	bubble(t, Options{ReadAhead: ReadLayers}, func(t *testing.T, s *shelf, r *reader, index, image ocispec.Descriptor) {
		r.head("1")
		expectAsked(t, s, "GET 1")
		r.head("1")
		<-time.After(2 * time.Hour)
		r.head("1")
		expectAsked(t, s, "HEAD 1")
	})
}

func TestWarmPullReadsNothingAhead(t *testing.T) {
	bubble(t, Options{ReadAhead: ReadConfig}, func(t *testing.T, s *shelf, r *reader, index, image ocispec.Descriptor) {
		for i := range 4 {
			r.blob(fmt.Sprintf("%s layer %d", here, i))
		}
		r.head("1")
		r.get(index)
		s.asked()
		r.close()
		r.opts.ReadAhead = ReadLayers
		again, err := Open(t.Context(), r.opts)
		if err != nil {
			t.Fatal(err)
		}
		r.Cache = again
		r.head("1")
		r.get(index)
		r.get(image)
		expectAsked(t, s)
	})
}

func TestHeadIsAskedWhereGetIsRefused(t *testing.T) {
	for status, want := range map[int][]string{429: {"GET 1", "HEAD 1"}, 503: {"GET 1", "HEAD 1"}, 404: {"GET 1"}, 0: {"GET 1"}} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			bubble(t, Options{ReadAhead: ReadConfig}, func(t *testing.T, s *shelf, r *reader, index, image ocispec.Descriptor) {
				s.refuse("GET", status)
				_, err := r.Manifest(t.Context(), testRepo, Reference{Tag: "1"}, Accept{}, true)
				if got := len(want) == 2; (err == nil) != got {
					t.Errorf("HEAD after a GET that gets %d: %v", status, err)
				}
				if failing := r.remotes["docker.io"].failing(); failing != (status == 0) {
					t.Errorf("failing: %v", failing)
				}
				expectAsked(t, s, want...)
			})
		})
	}
}

// TestTroubleEndsReadingAhead has a limit on GETs alone, as Docker Hub's: nothing that is free may suffer from it.
func TestTroubleEndsReadingAhead(t *testing.T) {
	bubble(t, Options{ReadAhead: ReadConfig}, func(t *testing.T, s *shelf, r *reader, index, image ocispec.Descriptor) {
		for _, tag := range []string{"2", "3", "4"} {
			s.tag(tag, s.index("index "+tag, s.image(here+" "+tag, 0)))
		}
		s.refuse("GET "+here, 429)
		r.head("1")
		r.get(index)
		expectAsked(t, s, "GET 1", "GET "+here)
		s.fail(nil)
		r.head("2")
		expectAsked(t, s, "HEAD 2")
		<-time.After(time.Minute)
		r.head("3")
		expectAsked(t, s, "GET 3")

		s.refuse("GET", 429) // to a client's own request
		if _, err := r.Manifest(t.Context(), testRepo, Reference{Tag: "new"}, Accept{}, false); err == nil {
			t.Error("no error")
		}
		s.asked()
		s.fail(nil)
		r.head("4")
		expectAsked(t, s, "HEAD 4")
		if n := r.logs.Len(); n > 0 {
			t.Errorf("logged: %v", r.logs.All())
		}
	})
}

func TestFailedReadAheadChangesNothing(t *testing.T) {
	for _, status := range []int{404, 403, 429, 500, 0} {
		for _, word := range []string{"GET " + here, "config"} {
			t.Run(fmt.Sprint(word, status), func(t *testing.T) {
				var readers []int
				opts := Options{ReadAhead: ReadConfig, FillDone: func(n int, err error) { readers = append(readers, n) }}
				bubble(t, opts, func(t *testing.T, s *shelf, r *reader, index, image ocispec.Descriptor) {
					s.refuse(word, status)
					r.head("1")
					r.get(index)
					if got := s.asked(); strings.Count(got, word) > strings.Count(got, "GET "+here) || !strings.Contains(got, word) {
						t.Errorf("asked %s", got)
					}
					if r.remotes["docker.io"].failing() || r.logs.Len() > 0 {
						t.Errorf("failing, or logged: %v", r.logs.All())
					}
					if word == "config" {
						r.get(image)
						expectAsked(t, s) // not a second time
					}
					s.fail(nil)
					r.get(image)
					r.blob(here + " config")
					synctest.Wait()
					if last := readers[len(readers)-1]; last != 1 || len(readers) == 2 && readers[0] != 0 {
						t.Errorf("fills had %v clients", readers)
					}
				})
			})
		}
	}
}

func TestClientJoinsWhatIsReadAhead(t *testing.T) {
	for _, park := range []bool{false, true} {
		bubble(t, Options{ReadAhead: ReadLayers, ParkAbandoned: park}, func(t *testing.T, s *shelf, r *reader, index, image ocispec.Descriptor) {
			release := s.hold(here)
			r.get(index)
			expectAsked(t, s, "GET "+here, "GET index")
			var clients sync.WaitGroup
			clients.Go(func() {
				if got := r.get(image); got != Collapsed {
					t.Errorf("%v", got)
				}
			})
			expectAsked(t, s)
			release()
			clients.Wait()
			synctest.Wait()
			s.asked()

			other := s.image("other", layersAtOnce+2)
			release = s.hold("other ")
			r.get(other)
			want := []string{"GET other", "GET other config"}
			for i := range layersAtOnce {
				want = append(want, fmt.Sprintf("GET other layer %d", i))
			}
			expectAsked(t, s, want...)
			for _, part := range []string{"other config", "other layer 1"} {
				clients.Go(func() {
					if got := r.blob(part); got == Miss { // all of it came at once, so it may be a hit
						t.Errorf("%s: %v", part, got)
					}
				})
			}
			expectAsked(t, s)
			release()
			clients.Wait()
			expectAsked(t, s, fmt.Sprintf("GET other layer %d", layersAtOnce), fmt.Sprintf("GET other layer %d", layersAtOnce+1))
			for i := range layersAtOnce + 2 {
				if got := r.blob(fmt.Sprintf("other layer %d", i)); got != Hit {
					t.Errorf("layer %d: %v", i, got)
				}
			}
			expectAsked(t, s)
		})
	}
}

// A large layer has time until a client waits for it; where what nobody waits for is parked, reading ahead is waiting.
func TestLargeLayerWaitsForNobody(t *testing.T) {
	for _, park := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newShelf()
			s.bodies = make(chan struct{})
			layer := strings.Repeat("large layer ", maxConfig/8)
			desc := s.put("", "large", "x/y", layer)
			image := s.put("", "image", ocispec.MediaTypeImageManifest,
				fmt.Sprintf(`{"layers":[{"mediaType":"x/y","digest":%q,"size":%d}]}`, desc.Digest, desc.Size))
			r := newReader(t, s, Options{ReadAhead: ReadLayers, ParkAbandoned: park})
			r.get(image)
			expectAsked(t, s, "GET image", "GET large")
			if got := s.waiting["large"](); got != park {
				t.Errorf("park %v: somebody waits: %v", park, got)
			}
			ctx, leave := context.WithCancel(t.Context())
			b, err := r.Blob(ctx, testRepo, desc.Digest, Whole)
			if err != nil {
				t.Fatal(err)
			}
			if b.Verdict.Outcome != Collapsed || !s.waiting["large"]() {
				t.Errorf("park %v: %v, and nobody waits", park, b.Verdict.Outcome)
			}
			leave()
			if err := b.Close(); err != nil {
				t.Error(err)
			}
			close(s.bodies)
			synctest.Wait()
			if got := r.blob(layer); got != Hit {
				t.Errorf("park %v: %v", park, got)
			}
			expectAsked(t, s)
		})
	}
}

func TestReadAheadIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		r := newReader(t, s, Options{ReadAhead: ReadLayers})
		release := s.hold("config", "layer")
		for i := range 2 * aheadAtOnce {
			r.get(s.image(fmt.Sprint(i), 2*maxLayers))
		}
		expect := func(word string, want int) {
			t.Helper()
			if got := strings.Count(s.asked(), word); got != want {
				t.Errorf("%d requests for a %s, want %d", got, word, want)
			}
		}
		asked := s.asked()
		if n, want := strings.Count(asked, "config"), aheadAtOnce; n != want {
			t.Errorf("%d configurations are asked for at once, want %d", n, want)
		}
		if n, want := strings.Count(asked, "layer"), imagesAtOnce*layersAtOnce; n != want {
			t.Errorf("%d layers are asked for at once, want %d", n, want)
		}
		release()
		expect("layer", imagesAtOnce*(maxLayers-layersAtOnce))
		s.fail(nil)
		r.get(s.image("later", 1)) // there is room again
		expect("later ", 2)
	})
}

func TestCloseEndsReadingAhead(t *testing.T) {
	for _, words := range [][]string{{here}, {"config", "layer"}} {
		for _, park := range []bool{false, true} {
			bubble(t, Options{ReadAhead: ReadLayers, ParkAbandoned: park}, func(t *testing.T, s *shelf, r *reader, index, image ocispec.Descriptor) {
				s.hold(words...)
				r.get(index)
				before := s.asked()
				r.close()
				if after := s.asked(); after != "" {
					t.Errorf("asked %s, and %s after Close", before, after)
				}
				if n := r.ahead.running["docker.io"] + r.ahead.images + len(r.ahead.fills); n != 0 {
					t.Errorf("%d are left", n)
				}
			})
		}
	}
}

// What is claimed by a manifest and refused by upstream is read ahead as little as a client would get it.
func TestReadAheadOpensNoDoor(t *testing.T) {
	bubble(t, Options{ReadAhead: ReadLayers}, func(t *testing.T, s *shelf, r *reader, index, image ocispec.Descriptor) {
		secret := Repository{Registry: "docker.io", Name: "corp/secret"}
		s.refuse("config", 404)
		r.get(image)
		s.asked()
		for _, part := range []string{" config", " layer 0"} {
			_, claimed := r.known(r.remotes["docker.io"], testRepo, digest.FromString(here+part))
			other, known := r.known(r.remotes["docker.io"], secret, digest.FromString(here+part))
			if !claimed || known || other.proven {
				t.Errorf("%s: claimed %v; elsewhere known %v, proven %v", part, claimed, known, other.proven)
			}
		}
		if mine, _ := r.known(r.remotes["docker.io"], testRepo, digest.FromString(here+" config")); mine.proven {
			t.Error("what upstream refused is proven")
		}
		if mine, _ := r.known(r.remotes["docker.io"], testRepo, digest.FromString(here+" layer 0")); !mine.proven {
			t.Error("what upstream gave is not proven")
		}
	})
}

func TestWhatIsNotKeptIsNotReadAhead(t *testing.T) {
	bubble(t, Options{ReadAhead: ReadLayers, MaxSize: 1}, func(t *testing.T, s *shelf, r *reader, index, image ocispec.Descriptor) {
		r.get(index)
		expectAsked(t, s, "GET index")
		s.tag("2", image)
		r.head("2")
		expectAsked(t, s, "HEAD 2")
	})
}

func TestNestedIndexesEnd(t *testing.T) {
	bubble(t, Options{ReadAhead: ReadLayers}, func(t *testing.T, s *shelf, r *reader, index, image ocispec.Descriptor) {
		inner := s.index(here, image)
		outer := s.index("outer", inner)
		r.get(outer)
		expectAsked(t, s, "GET outer", "GET "+here)
	})
}
