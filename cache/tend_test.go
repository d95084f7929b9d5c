package cache

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache/index"
)

// tended opens a cache whose index is looked after; end closes it.
func tended(t *testing.T, opts Options) (c *Cache, end func()) {
	t.Helper()
	c, err := open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	c.work.Go(c.tend)
	return c, func() {
		t.Helper()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

var notKept = digest.FromString("not kept")

// confirm records something of what is not kept.
func confirm(t *testing.T, c *Cache) {
	t.Helper()
	if err := c.index.Confirm(testRepo, notKept, index.Member{}); err != nil {
		t.Fatal(err)
	}
}

// forgot reports whether that is not recorded any more.
func forgot(c *Cache) bool {
	_, ok := c.index.Member(testRepo, notKept)
	return !ok
}

// TestTheIndexIsSweptThoughTheProgramIsRestarted every 23 hours.
func TestTheIndexIsSweptThoughTheProgramIsRestarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := Options{DataDir: t.TempDir()}
		c, end := tended(t, opts)
		confirm(t, c)
		end()
		for day := range 2 {
			c, end := tended(t, opts)
			<-time.After(23 * time.Hour)
			if day == 1 && !forgot(c) {
				t.Error("what nobody needs is recorded for good")
			}
			end()
		}
	})
}

// TestTheSweepIsDue ten minutes after a start, a day after the last sweep, and when the clock was wrong at that; never in trouble.
func TestTheSweepIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, end := tended(t, Options{DataDir: t.TempDir()})
		defer end()
		expect := func(after time.Duration, want time.Time) {
			t.Helper()
			<-time.After(after)
			synctest.Wait()
			if got := c.index.Swept(); got.Sub(want).Abs() > tendEvery {
				t.Errorf("last swept at %v, want %v", got, want)
			}
		}
		first := time.Now().Add(sweepRest)
		expect(sweepRest-time.Minute, time.Time{})
		expect(2*time.Minute, first)
		expect(sweepEvery-2*time.Minute, first)
		expect(2*time.Minute, first.Add(sweepEvery))
		ahead := time.Now().AddDate(10, 0, 0)
		if err := c.index.Sweep(t.Context(), ahead, c.here); err != nil {
			t.Fatal(err)
		}
		expect(sweepRest, first.Add(sweepEvery+sweepRest))
		c.keeper.Trouble(syscall.EIO)
		expect(sweepEvery+time.Hour, first.Add(sweepEvery+sweepRest))
	})
}

// TestASweepThatMeetsTroubleForgetsNothing, and is none.
func TestASweepThatMeetsTroubleForgetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReader(t, newShelf(), Options{})
		confirm(t, r.Cache)
		r.sweep()
		first := r.index.Swept()
		<-time.After(time.Hour)
		r.keeper.Trouble(syscall.EIO)
		r.sweep()
		if forgot(r.Cache) || !r.index.Swept().Equal(first) {
			t.Errorf("forgotten %v; swept at %v, and %v", forgot(r.Cache), first, r.index.Swept())
		}
	})
}

// TestTheSweepWaitsForADiskThatFails: what can't be looked for is not gone.
func TestTheSweepWaitsForADiskThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		r := newReader(t, s, Options{})
		image := s.image("image", 1)
		s.tag("1", image)
		r.head("1")
		r.get(image)
		confirm(t, r.Cache)
		synctest.Wait()
		r.work.Go(r.tend)
		<-time.After(sweepEvery / 2)
		blobs := filepath.Join(r.opts.DataDir, "blobs")
		if err := os.Rename(blobs, blobs+"x"); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("blobs", blobs); err != nil { // a loop: an error that is not that there is none
			t.Fatal(err)
		}
		<-time.After(sweepEvery)
		if err := os.Remove(blobs); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(blobs+"x", blobs); err != nil {
			t.Fatal(err)
		}
		if _, ok := r.index.Tag(testRepo, "1"); !ok || !r.keeper.Has(image.Digest) {
			t.Error("the tag is forgotten, though its manifest is kept")
		}
		if !forgot(r.Cache) {
			t.Error("there was no sweep")
		}
	})
}

// TestAnIndexLostWhileTemporaryIsToldOf: the index can't be opened at the start. When it can, it is damaged, or gone.
func TestAnIndexLostWhileTemporaryIsToldOf(t *testing.T) {
	for _, test := range []struct {
		name                string
		kept, back, damaged bool // content is kept; the index is back, and damaged
		want                []Damage
	}{
		{"as it was left", true, true, false, nil},
		{"damaged", true, true, true, []Damage{DamagedIndex}},
		{"gone", true, false, false, []Damage{DamagedIndex}},
		{"a first start", false, false, false, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var healed []Damage
				opts := Options{DataDir: t.TempDir(), Healed: func(d Damage) { healed = append(healed, d) }}
				at := filepath.Join(opts.DataDir, "index")
				if test.kept {
					c, end := tended(t, opts)
					c.put(digest.FromString("content"), []byte("content"))
					end()
					if err := os.Rename(at, at+"x"); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.Symlink("/proc/none/index", at); err != nil { // it can't be made
					t.Fatal(err)
				}
				c, end := tended(t, opts)
				defer end()
				if err := os.Remove(at); err != nil {
					t.Fatal(err)
				}
				if test.back {
					if err := os.Rename(at+"x", at); err != nil {
						t.Fatal(err)
					}
				}
				if test.damaged {
					if err := os.WriteFile(filepath.Join(at, "MANIFEST"), []byte("noise"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				if !c.index.Temporary() {
					t.Fatal("not temporary")
				}
				<-time.After(time.Minute)
				synctest.Wait()
				if c.index.Temporary() || !slices.Equal(healed, test.want) {
					t.Errorf("temporary %v, healed %v, want %v", c.index.Temporary(), healed, test.want)
				}
			})
		})
	}
}

// hideIndex has the index not be opened, nor made, until back is called.
func hideIndex(t *testing.T, dataDir string) (back func()) {
	t.Helper()
	at := filepath.Join(dataDir, "index")
	if err := errors.Join(os.Rename(at, at+"x"), os.Symlink("/proc/none/index", at)); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := errors.Join(os.Remove(at), os.Rename(at+"x", at)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestATagWithdrawnWhileTheIndexIsTemporaryIsGone: the index can't be opened when upstream says that it does not serve a tag any more.
func TestATagWithdrawnWhileTheIndexIsTemporaryIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		s.tag("withdrawn", s.image("image", 1))
		s.tag("served", s.image("other", 1))
		r := newReader(t, s, Options{})
		r.head("withdrawn")
		r.head("served")
		r.close()
		back := hideIndex(t, r.opts.DataDir)
		c, end := tended(t, r.opts)
		defer end()
		s.refuse("withdrawn", http.StatusNotFound)
		if _, err := c.Manifest(t.Context(), testRepo, Reference{Tag: "withdrawn"}, Accept{}, true); err == nil {
			t.Fatal("served")
		}
		back()
		<-time.After(time.Minute)
		synctest.Wait()
		if _, ok := c.index.Tag(testRepo, "served"); !ok || c.index.Temporary() {
			t.Fatal("the index is not back")
		}
		if _, ok := c.index.Tag(testRepo, "withdrawn"); ok {
			t.Error("the tag is back")
		}
	})
}
