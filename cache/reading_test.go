package cache

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/cache/fill"
	"github.com/entrepot/entrepot/upstream"
)

// TestALieAboutASizeReadsLittleAhead has manifests say that blobs are small which are not.
func TestALieAboutASizeReadsLittleAhead(t *testing.T) {
	for _, park := range []bool{false, true} {
		for _, says := range []int{0, 10, maxConfig} {
			synctest.Test(t, func(t *testing.T) {
				s := newShelf()
				r := newReader(t, s, Options{ReadAhead: ReadLayers, ParkAbandoned: park})
				config, layer := strings.Repeat("c", 4*maxConfig), strings.Repeat("l", 4*maxConfig)
				var parts []any
				for name, content := range map[string]string{"config": config, "layer": layer} {
					parts = append(parts, s.put("", name, "x/y", content).Digest, says)
				}
				image := s.put("", "image", ocispec.MediaTypeImageManifest,
					fmt.Sprintf(`{"config":{"mediaType":"x/y","digest":%q,"size":%d},"layers":[{"mediaType":"x/y","digest":%q,"size":%d}]}`, parts...))
				r.get(image)
				expectAsked(t, s, "GET image", "GET config", "GET layer")
				<-time.After(10 * time.Second)
				synctest.Wait()
				for i := 0; i < len(parts); i += 2 {
					if d := s.items[fmt.Sprint(parts[i])].Digest; r.keeper.Has(d) || r.fills.InFlight(d) {
						t.Errorf("park %v: all of what is said to have %d bytes is read ahead", park, says)
					}
				}
				r.blob(config)
				r.blob(layer)
			})
		}
	}
}

// TestABlobThatIsThrottledEndsReadingAhead has upstream break off and then refuse what has begun well.
func TestABlobThatIsThrottledEndsReadingAhead(t *testing.T) {
	var r *reader
	var rests []bool
	done := func(registry, kind string, kept bool) {
		if kind == "blob" && !kept {
			_, ok := r.ahead.willing(registry)
			rests = append(rests, !ok)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		image := s.image("image", 0)
		r = newReader(t, s, Options{ReadAhead: ReadConfig, AheadDone: done})
		for at, is := range s.items {
			if is.name == "image config" {
				is.content = is.content[:1]
				s.items[at] = is
			}
		}
		r.get(image)
		synctest.Wait()
		s.refuse("config", 429)
		<-time.After(time.Hour)
		synctest.Wait()
		if len(rests) != 1 || !rests[0] {
			t.Errorf("rests: %v", rests)
		}
	})
}

// TestTheEndOfAnotherFillIsNotTaken tells of the end of a fill that is out of flight, while the next of the same blob is read ahead.
func TestTheEndOfAnotherFillIsNotTaken(t *testing.T) {
	var ends []bool
	opts := Options{ReadAhead: ReadLayers, AheadDone: func(_, kind string, kept bool) {
		if kind == "blob" {
			ends = append(ends, kept)
		}
	}}
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		s.bodies = make(chan struct{})
		layer := s.put("", "layer", "x/y", "layer")
		r := newReader(t, s, opts)
		r.get(s.put("", "image", ocispec.MediaTypeImageManifest,
			fmt.Sprintf(`{"layers":[{"mediaType":"x/y","digest":%q,"size":%d}]}`, layer.Digest, layer.Size)))
		expectAsked(t, s, "GET image", "GET layer")
		for range 2 {
			r.fillDone(fill.Report{Digest: layer.Digest, Size: layer.Size, Readers: 1, Err: &upstream.Error{Status: 500},
				Source: source{repo: testRepo, d: layer.Digest}})
		}
		synctest.Wait()
		if len(ends) > 0 || r.fills.Stats().Readers != 1 {
			t.Errorf("it has ended: %v", ends)
		}
		close(s.bodies)
		synctest.Wait()
		if len(ends) != 1 || !ends[0] {
			t.Errorf("ends: %v", ends)
		}
	})
}

// TestWhatComesMeanwhileIsNotReadAhead has a blob kept by somebody else just before it is asked for: it is neither success nor
// failure.
func TestWhatComesMeanwhileIsNotReadAhead(t *testing.T) {
	come := func() {}
	var ends []string
	opts := Options{ReadAhead: ReadConfig, AheadDone: func(_, kind string, _ bool) { ends = append(ends, kind) },
		Now: func() time.Time { come(); return time.Now() }}
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		r := newReader(t, s, opts)
		blob := s.put("", "blob", "x/y", "blob")
		come = func() { r.put(blob.Digest, []byte("blob")) }
		r.ahead.blob(r.ctx, testRepo, blob)
		expectAsked(t, s)
		if len(ends) > 0 || len(r.ahead.fills) > 0 || !r.keeper.Has(blob.Digest) {
			t.Errorf("counted %v", ends)
		}
	})
}
