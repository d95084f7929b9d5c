package keeper

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"
)

// shop is a keeper in a directory of the test's, and what it said was healed and removed.
type shop struct {
	*Keeper
	t       *testing.T
	opts    Options
	healed  []Damage
	removed []digest.Digest
}

func openShop(t *testing.T, opts Options) *shop {
	t.Helper()
	s := &shop{t: t, opts: opts}
	if s.opts.Dir == "" {
		s.opts.Dir = t.TempDir()
	}
	if s.opts.Now == nil {
		s.opts.Now = time.Now
	}
	s.opts.Log = zap.NewNop()
	s.opts.Healed = func(d Damage) { s.healed = append(s.healed, d) }
	s.opts.Removed = func(d digest.Digest) { s.removed = append(s.removed, d) }
	s.open()
	t.Cleanup(func() { s.close() })
	return s
}

func (s *shop) open() {
	s.t.Helper()
	var err error
	if s.Keeper, err = Open(context.Background(), s.opts); err != nil {
		s.t.Fatal(err)
	}
}

func (s *shop) close() {
	s.t.Helper()
	if s.Keeper == nil {
		return
	}
	if err := s.Keeper.Close(); err != nil {
		s.t.Error(err)
	}
	s.Keeper = nil
}

// put keeps content of that size, each time of another digest.
func (s *shop) put(name string, size int) digest.Digest {
	s.t.Helper()
	body := contentOf(name, size)
	d := digest.FromBytes(body)
	if err := s.Put(d, body); err != nil {
		s.t.Fatal(err)
	}
	return d
}

func contentOf(name string, size int) []byte {
	return bytes.Repeat([]byte(fmt.Sprintf("%-16.16s", name)), (size+15)/16)[:size]
}

// read returns what is kept; ok is false if it is not served.
func (s *shop) read(d digest.Digest) (body []byte, ok bool) {
	s.t.Helper()
	f, ok := s.Blob(s.t.Context(), d)
	if !ok {
		return nil, false
	}
	defer f.Close()
	body, err := io.ReadAll(f)
	if err != nil {
		s.t.Fatal(err)
	}
	return body, true
}

func (s *shop) path(d digest.Digest) string {
	return filepath.Join(s.opts.Dir, "blobs", string(d.Algorithm()), d.Encoded()[:2], d.Encoded())
}

// flip changes a byte of a file; with quiet its times are as they were.
func (s *shop) flip(d digest.Digest, quiet bool) {
	s.t.Helper()
	path := s.path(d)
	info, err := os.Stat(path)
	if err != nil {
		s.t.Fatal(err)
	}
	body, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	body[len(body)/2] ^= 1
	if err := os.WriteFile(path, body, 0o640); err != nil {
		s.t.Fatal(err)
	}
	if quiet {
		if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
			s.t.Fatal(err)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestDamageHeals does to the file of content what disks and people do, while it is open and while it is not.
func TestDamageHeals(t *testing.T) {
	for _, size := range []int{100, 100_000} {
		for what, does := range map[string]struct {
			damage Damage
			do     func(t *testing.T, s *shop, d digest.Digest)
		}{
			"a byte flipped": {DamagedContent, func(t *testing.T, s *shop, d digest.Digest) { s.flip(d, false) }},
			"truncated":      {DamagedContent, func(t *testing.T, s *shop, d digest.Digest) { must(t, os.Truncate(s.path(d), 7)) }},
			"emptied":        {DamagedContent, func(t *testing.T, s *shop, d digest.Digest) { must(t, os.Truncate(s.path(d), 0)) }},
			"made longer":    {DamagedContent, func(t *testing.T, s *shop, d digest.Digest) { must(t, os.Truncate(s.path(d), int64(2*size))) }},
			"deleted":        {DamagedMissing, func(t *testing.T, s *shop, d digest.Digest) { must(t, os.Remove(s.path(d))) }},
			"a directory": {DamagedUnreadable, func(t *testing.T, s *shop, d digest.Digest) {
				must(t, os.Remove(s.path(d)))
				must(t, os.MkdirAll(filepath.Join(s.path(d), "full"), 0o750))
			}},
			"a link": {DamagedUnreadable, func(t *testing.T, s *shop, d digest.Digest) {
				must(t, os.Rename(s.path(d), s.path(d)+"x"))
				must(t, os.Symlink(s.path(d)+"x", s.path(d)))
			}},
			"its directory deleted": {DamagedMissing, func(t *testing.T, s *shop, d digest.Digest) { must(t, os.RemoveAll(filepath.Dir(s.path(d)))) }},
		} {
			for _, restart := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %d bytes, restart %v", what, size, restart), func(t *testing.T) {
					listed := map[digest.Digest]bool{}
					s := openShop(t, Options{Listed: func(d digest.Digest) bool { return listed[d] }})
					d := s.put("content", size)
					changed, done := s.TakeChanges()
					maps.Copy(listed, changed)
					done(true)
					if restart {
						s.close()
						does.do(t, s, d)
						s.open()
						s.Census(t.Context())
					} else {
						does.do(t, s, d)
					}
					if body, ok := s.read(d); ok {
						t.Fatalf("served: %.20q", body)
					}
					if len(s.healed) > 0 {
						t.Errorf("healed before it is here again: %v", s.healed)
					}
					s.put("content", size)
					if body, ok := s.read(d); !ok || digest.FromBytes(body) != d {
						t.Error("not served after it was kept again")
					}
					if !slices.Equal(s.healed, []Damage{does.damage}) || s.Stats().Damaged != 1 {
						t.Errorf("healed %v, want one of %v; %d damaged", s.healed, does.damage, s.Stats().Damaged)
					}
					empty(t, s)
				})
			}
		}
	}
}

// empty evicts all that is known, and checks that no byte of it is counted after that.
func empty(t *testing.T, s *shop) {
	t.Helper()
	for {
		if _, ok := s.evict(); !ok {
			break
		}
	}
	if n := s.Stats().Content; n != 0 {
		t.Errorf("%d are left", n)
	}
	fresh := openShop(t, Options{})
	if got, want := s.Stats().Bytes, fresh.Stats().Bytes; got > want+4*4096 { // directories stay
		t.Errorf("%d bytes are counted, of an empty directory %d", got, want)
	}
}

// TestWhatWasOnlyTouchedStays: content that was restored from a backup is read once, and believed after that.
func TestWhatWasOnlyTouchedStays(t *testing.T) {
	s := openShop(t, Options{})
	d := s.put("content", 100_000)
	must(t, os.Chtimes(s.path(d), time.Now(), time.Now()))
	f, err := s.disk.Blob(d)
	must(t, err)
	f.Close()
	if !f.Verified.IsZero() {
		t.Fatal("believed unread")
	}
	if _, ok := s.read(d); !ok {
		t.Fatal("not served")
	}
	f, err = s.disk.Blob(d)
	must(t, err)
	f.Close()
	if f.Verified.IsZero() || len(s.healed) > 0 || s.Stats().Damaged > 0 {
		t.Errorf("verified %v, healed %v", f.Verified, s.healed)
	}
}

// TestPromiseNothingIsEvictedUnderAnOpenReader: it would free nothing, and more be on disk than the cap allows.
func TestPromiseNothingIsEvictedUnderAnOpenReader(t *testing.T) {
	s := openShop(t, Options{})
	read, other := s.put("read", 5000), s.put("other", 5000)
	f, ok := s.Blob(t.Context(), read)
	if !ok {
		t.Fatal("not kept")
	}
	for range 3 {
		if _, ok := s.evict(); !ok {
			break
		}
	}
	if !s.Has(read) || s.Has(other) || !s.Knows(read) {
		t.Errorf("kept: read %v, other %v", s.Has(read), s.Has(other))
	}
	f.Close()
	if _, ok := s.evict(); !ok || s.Has(read) {
		t.Error("not evicted after it was read")
	}
}

// TestPromisePinnedContentStays, whether it is pinned before or after it is kept, also after a restart; until it is not pinned any more.
func TestPromisePinnedContentStays(t *testing.T) {
	s := openShop(t, Options{})
	before := digest.FromBytes(contentOf("before", 5000))
	s.Pin([]digest.Digest{before})
	s.put("before", 5000)
	after, other := s.put("after", 5000), s.put("other", 5000)
	s.Pin([]digest.Digest{after})
	all := func() {
		for {
			if _, ok := s.evict(); !ok {
				return
			}
		}
	}
	all()
	if !s.Has(before) || !s.Has(after) || s.Has(other) {
		t.Errorf("kept: %v, %v, other %v", s.Has(before), s.Has(after), s.Has(other))
	}
	s.close()
	s.open()
	s.Repin(map[digest.Digest]bool{after: true})
	s.Census(t.Context())
	all()
	if s.Has(before) || !s.Has(after) {
		t.Errorf("kept: no longer pinned %v, pinned %v", s.Has(before), s.Has(after))
	}
	s.Repin(nil)
	all()
	if s.Has(after) {
		t.Error("kept although no longer pinned")
	}
}

// TestUsesOutliveARestart: what was used last goes last, although it was kept first.
func TestUsesOutliveARestart(t *testing.T) {
	clock := time.Now()
	s := openShop(t, Options{Now: func() time.Time { return clock }})
	first, second := s.put("first", 5000), s.put("second", 5000)
	clock = clock.Add(time.Hour)
	s.recency.turn()
	if _, ok := s.read(first); !ok {
		t.Fatal("not kept")
	}
	s.close()
	s.open()
	s.Census(t.Context())
	if _, ok := s.evict(); !ok || !s.Has(first) || s.Has(second) {
		t.Errorf("kept: used last %v, used before %v", s.Has(first), s.Has(second))
	}
}

// TestPromiseRotIsFound has content rot so that nothing shows it: the scrubber finds it, and nothing else goes.
func TestPromiseRotIsFound(t *testing.T) {
	s := openShop(t, Options{ScrubRate: 1 << 20})
	rotten, sound := s.put("rotten", 3<<20), s.put("sound", 3<<20)
	small := s.put("small", 10)
	s.flip(rotten, true)
	s.flip(small, true)
	if _, ok := s.read(rotten); !ok {
		t.Fatal("the test does not hide the rot")
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		s.Keeper.opts.Now = func() time.Time { return time.Now().AddDate(40, 0, 0) } // the bubble's clock begins in the past
		go s.scrub(ctx)
		elapse(ctx, time.Minute)
		cancel()
		synctest.Wait()
	})
	if s.Has(rotten) || s.Has(small) || !s.Has(sound) {
		t.Errorf("kept: rotten %v, small %v, sound %v", s.Has(rotten), s.Has(small), s.Has(sound))
	}
	if st := s.Stats(); st.Damaged != 2 || st.Scrubbed < 3 || st.ScrubbedBytes < 6<<20 {
		t.Errorf("%+v", st)
	}
	s.put("rotten", 3<<20)
	if !slices.Equal(s.healed, []Damage{DamagedContent}) {
		t.Errorf("healed %v", s.healed)
	}
}

// TestPromiseLastByteIsHeldOfWhatIsDue: content that was not verified for long is so while it is read.
func TestPromiseLastByteIsHeldOfWhatIsDue(t *testing.T) {
	clock := time.Now()
	s := openShop(t, Options{VerifyAfter: time.Hour, Now: func() time.Time { return clock }})
	sound, rotten := s.put("sound", 100_000), s.put("rotten", 100_000)
	s.flip(rotten, true)
	watch := func(d digest.Digest) *Watched {
		t.Helper()
		f, ok := s.Blob(t.Context(), d)
		if !ok {
			t.Fatal("not served")
		}
		if !s.Due(f) {
			t.Fatal("not due")
		}
		return s.Watch(f, d)
	}
	clock = clock.Add(2 * time.Hour)

	w := watch(sound)
	_, err := w.Seek(50_000, io.SeekStart)
	must(t, err)
	part, err := io.ReadAll(io.LimitReader(w, 1000))
	must(t, err)
	_, err = w.Seek(0, io.SeekStart)
	must(t, err)
	all, err := io.ReadAll(w)
	must(t, err)
	if want := contentOf("sound", 100_000); !bytes.Equal(all, want) || !bytes.Equal(part, want[50_000:51_000]) {
		t.Error("other bytes")
	}
	must(t, w.Close())
	if f, ok := s.Blob(t.Context(), sound); !ok || s.Due(f) {
		t.Error("still due")
	} else {
		f.Close()
	}

	w = watch(rotten)
	got, err := io.ReadAll(w)
	if err == nil || len(got) != 99_999 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	must(t, w.Close())
	if s.Has(rotten) {
		t.Error("still kept")
	}
}

// TestPartsOfWhatIsDueAreVerifiedBehind has somebody read some bytes of rotten content.
func TestPartsOfWhatIsDueAreVerifiedBehind(t *testing.T) {
	clock := time.Now()
	s := openShop(t, Options{VerifyAfter: time.Hour, Now: func() time.Time { return clock }})
	rotten := s.put("rotten", 100_000)
	s.flip(rotten, true)
	clock = clock.Add(2 * time.Hour)
	f, ok := s.Blob(t.Context(), rotten)
	if !ok {
		t.Fatal("not served")
	}
	w := s.Watch(f, rotten)
	_, err := io.CopyN(io.Discard, w, 10)
	must(t, err)
	must(t, w.Close())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	s.opts.Removed = nil
	s.Keeper.opts.Removed = func(digest.Digest) { cancel() }
	go func() {
		defer close(done)
		s.verifyRechecks(ctx)
	}()
	<-done
	if s.Has(rotten) {
		t.Error("still kept")
	}
}
