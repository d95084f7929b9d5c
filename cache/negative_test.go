package cache

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/upstream"
)

// lacks asks for something, which is not to be there by what upstream says, or has said.
func (r *reader) lacks(remembered bool, ask func() error) {
	r.t.Helper()
	err := ask()
	if !isAbsence(err) || errors.Is(err, ErrRemembered) != remembered {
		r.t.Errorf("%v, remembered: %t", err, errors.Is(err, ErrRemembered))
	}
}

func (r *reader) manifest(ref Reference, head bool) func() error {
	return func() error {
		_, err := r.Manifest(r.t.Context(), testRepo, ref, Accept{}, head)
		return err
	}
}

func TestAbsenceIsAskedForOnce(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *shelf, r *reader, _, _ ocispec.Descriptor) {
		d := digest.FromString("missing")
		for what, ask := range map[string]func() error{
			"tag":         r.manifest(Reference{Tag: "missing"}, false),
			"tag, HEAD":   r.manifest(Reference{Tag: "absent"}, true),
			"digest":      r.manifest(Reference{Digest: d}, false),
			"HEAD digest": r.manifest(Reference{Digest: digest.FromString("absent")}, true),
			"blob":        func() error { _, err := r.Blob(t.Context(), testRepo, d, Whole); return err },
			"HEAD blob": func() error {
				_, _, err := r.StatBlob(t.Context(), testRepo, digest.FromString("absent"))
				return err
			},
		} {
			t.Log(what)
			r.lacks(false, ask)
			if s.asked() == "" {
				t.Error("nobody was asked")
			}
			r.lacks(true, ask)
			expectAsked(t, s)
			<-time.After(10 * time.Second)
			r.lacks(false, ask)
			s.asked()
		}
	})
}

// TestAnswerToHeadIsNoneToGet is about registries that refuse HEAD alone, by a 404.
func TestAnswerToHeadIsNoneToGet(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *shelf, r *reader, index, image ocispec.Descriptor) {
		s.refuse("HEAD", 404)
		r.lacks(false, r.manifest(Reference{Digest: image.Digest}, true))
		r.lacks(true, r.manifest(Reference{Digest: image.Digest}, true))
		r.get(image)
		if err := r.manifest(Reference{Digest: image.Digest}, true)(); err != nil {
			t.Error(err)
		}
	})
}

func TestWhatIsSeenIsNotAbsent(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *shelf, r *reader, _, _ ocispec.Descriptor) {
		lost := Reference{Digest: digest.FromString(`{"config":` + `{"mediaType":"x/y","digest":"` + digest.FromString("new config").String() + `","size":10},"layers":[]}`)}
		config := func() error {
			_, _, err := r.StatBlob(t.Context(), testRepo, digest.FromString("new config"))
			return err
		}
		r.lacks(false, r.manifest(lost, false))
		r.lacks(false, config)
		image := s.image("new", 0) // it is pushed
		if image.Digest != lost.Digest {
			t.Fatal("another image")
		}
		s.tag("new", image)
		r.lacks(true, r.manifest(lost, false))
		r.lacks(true, config)
		r.tag("new")
		r.get(image)
		if err := config(); err != nil {
			t.Error(err)
		}
		r.blob("new config")
	})
}

func TestAbsenceInOneRepositoryIsNoneInAnother(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *shelf, r *reader, _, image ocispec.Descriptor) {
		s.refuse("GET "+here, 404)
		r.lacks(false, r.manifest(Reference{Digest: image.Digest}, false))
		s.fail(nil)
		other := Repository{Registry: "docker.io", Name: "library/b"}
		if _, err := r.Manifest(t.Context(), other, Reference{Digest: image.Digest}, Accept{}, false); err != nil {
			t.Error(err)
		}
	})
}

func TestRefusalIsNotRemembered(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *shelf, r *reader, _, _ ocispec.Descriptor) {
		for _, status := range []int{401, 403, 429, 500, 503, 0} {
			s.refuse("", status)
			ask := r.manifest(Reference{Tag: fmt.Sprint("tag", status)}, false)
			for range 2 {
				if err := ask(); err == nil || errors.Is(err, ErrRemembered) {
					t.Errorf("%d: %v", status, err)
				}
			}
		}
	})
}

func TestAbsencesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a absences
		err := &upstream.Error{Status: 404, Message: strings.Repeat("m", 200)}
		long := strings.Repeat("x", 1000)
		for n := range 20_000 {
			a.note(thing{testRepo, fmt.Sprint(long, n%15_000)}, err, time.Now(), n%3 == 0)
			if n%1000 == 0 {
				a.forget(thing{testRepo, fmt.Sprint(long, n)})
			}
		}
		sum := 0
		for e := a.order.Front(); e != nil; e = e.Next() {
			sum += e.Value.(*absence).cost
		}
		if a.bytes > maxAbsences || a.bytes < maxAbsences/2 || sum != a.bytes || len(a.of) != a.order.Len() {
			t.Errorf("%d bytes by count, %d by sum, %d and %d things", a.bytes, sum, len(a.of), a.order.Len())
		}
		if a.recall(thing{testRepo, fmt.Sprint(long, 4999)}, time.Now(), time.Second, true) == nil {
			t.Error("the latest is not there")
		}
	})
}

// TestAbsenceByHeadIsRememberedAfterAnOlderByGet has things asked for by GET, and much later by HEAD.
func TestAbsenceByHeadIsRememberedAfterAnOlderByGet(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *shelf, r *reader, _, _ ocispec.Descriptor) {
		get, head := r.manifest(Reference{Tag: "missing"}, false), r.manifest(Reference{Tag: "missing"}, true)
		r.lacks(false, get)
		<-time.After(time.Minute)
		r.lacks(false, head)
		r.lacks(true, head)
		r.lacks(false, get)
		<-time.After(5 * time.Second)
		r.lacks(true, head)
		r.lacks(true, get)
	})
}
