package keeper

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/entrepot/entrepot/cache/disk"
)

// watch lets the log be looked at.
func (s *shop) watchLog() *observer.ObservedLogs {
	core, logs := observer.New(zapcore.DebugLevel)
	s.Keeper.log = zap.New(core)
	return logs
}

// TestWhoComesLateRemovesNothingRight: two read the same damaged content; when the second notices, it was fetched again.
func TestWhoComesLateRemovesNothingRight(t *testing.T) {
	clock := time.Now()
	s := openShop(t, Options{VerifyAfter: time.Hour, Now: func() time.Time { return clock }})
	d := s.put("content", 100_000)
	s.flip(d, true)
	clock = clock.Add(2 * time.Hour)
	var readers [2]*Watched
	for i := range readers {
		f, ok := s.Blob(t.Context(), d)
		if !ok {
			t.Fatal("not served")
		}
		readers[i] = s.Watch(f, d)
		defer readers[i].Close()
	}
	if _, err := io.ReadAll(readers[0]); err == nil {
		t.Fatal("damage is served")
	}
	s.put("content", 100_000)
	if _, err := io.ReadAll(readers[1]); err == nil {
		t.Fatal("damage is served")
	}
	if !s.Has(d) {
		t.Error("content that is right was removed")
	}
	s.put("content", 100_000)
	if st := s.Stats(); st.Damaged != 1 || len(s.healed) != 1 {
		t.Errorf("one was damaged; counted %d, healed %v", st.Damaged, s.healed)
	}
}

// TestDamageIsToldOfOnce has many wait for content that turns out to be damaged.
func TestDamageIsToldOfOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := make(chan struct{})
		var hold chan struct{}
		s := openShop(t, Options{Now: func() time.Time {
			if hold != nil {
				<-hold
			}
			return time.Now()
		}})
		logs := s.watchLog()
		d := s.put("content", 100_000)
		s.flip(d, false)
		hold = held
		for range 10 {
			go func() {
				if f, ok := s.Blob(context.Background(), d); ok {
					f.Close()
					t.Error("served")
				}
			}()
		}
		synctest.Wait()
		close(held)
		synctest.Wait()
		if n := logs.FilterLevelExact(zap.ErrorLevel).Len(); n != 1 {
			t.Errorf("%d errors are logged of one damaged content", n)
		}
	})
}

// abandonedVerification is of damaged content, that who asked for it has left; it goes on when it is released. It needs a bubble.
func abandonedVerification(t *testing.T) (s *shop, d digest.Digest, release func()) {
	t.Helper()
	var hold chan struct{}
	s = openShop(t, Options{Now: func() time.Time {
		if hold != nil {
			<-hold
		}
		return time.Now()
	}})
	d = s.put("content", 100_000)
	s.flip(d, false)
	hold = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if f, ok := s.Blob(ctx, d); ok {
			f.Close()
		}
	}()
	synctest.Wait()
	cancel()
	synctest.Wait()
	return s, d, func() { close(hold) }
}

// TestVerificationEndsBeforeClose: who asked has left, and the keeper is being closed.
func TestVerificationEndsBeforeClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, release := abandonedVerification(t)
		closed := make(chan struct{})
		k := s.Keeper
		s.Keeper = nil
		go func() {
			must(t, k.Close())
			close(closed)
		}()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("closed while content is being read through")
		default:
		}
		release()
		<-closed
	})
}

// TestDamageThatNobodyWaitsForIsRemoved: who asked for damaged content has left when that is found.
func TestDamageThatNobodyWaitsForIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d, release := abandonedVerification(t)
		release()
		synctest.Wait()
		if s.Has(d) {
			t.Error("found damaged, and left there")
		}
	})
}

// TestADiskThatRefusesToRemoveIsToldOfNowAndThen has a disk full to the mark refuse removals for an hour.
func TestADiskThatRefusesToRemoveIsToldOfNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 64 << 20
		s := openShop(t, Options{MaxSize: limit, ScrubRate: -1})
		logs := s.watchLog()
		d := s.put("content", 1<<20)
		_ = s.put("other", 1<<20)
		s.Occupy(limit - 6<<20) // more than the mark leaves beside these
		if s.disk.Excess() == 0 {
			t.Fatal("there is room")
		}
		backs := []func(){s.astray(d), s.astray(digest.FromBytes(contentOf("other", 1<<20)))}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.Run(ctx)
		}()
		<-time.After(time.Hour)
		cancel()
		<-done
		for _, back := range backs {
			back()
		}
		if n := logs.FilterLevelExact(zap.WarnLevel).Len() + logs.FilterLevelExact(zap.ErrorLevel).Len() + logs.FilterLevelExact(zap.InfoLevel).Len(); n > 100 {
			t.Errorf("%d lines in an hour, such as %v", n, logs.All()[n-3:])
		}
	})
}

// TestWhatCannotBeStampedIsRemembered, as on a file system that is read-only: it is read through once, until somebody changes it.
func TestWhatCannotBeStampedIsRemembered(t *testing.T) {
	s := openShop(t, Options{VerifyAfter: time.Hour})
	d := s.put("content", 100_000)
	touch := func() {
		t.Helper()
		must(t, os.Chtimes(s.path(d), time.Time{}, time.Now()))
	}
	touch()
	f, err := s.disk.Blob(d)
	must(t, err)
	defer f.Close()
	s.unstamped.note(f, d, time.Now())
	logs := s.watchLog()
	again, ok := s.Blob(t.Context(), d)
	if !ok || s.Due(again) || again.Verified.IsZero() {
		t.Fatalf("not believed: %v", ok)
	}
	again.Close()
	if stamped, err := s.disk.Blob(d); err != nil || !stamped.Verified.IsZero() {
		t.Error("read through once more, and stamped")
	} else {
		stamped.Close()
	}
	s.flip(d, false)
	if _, ok := s.Blob(t.Context(), d); ok {
		t.Error("believed after it was changed")
	}
	if n := logs.FilterLevelExact(zap.ErrorLevel).Len(); n != 1 {
		t.Errorf("%d errors are told of one damage", n)
	}
}

// TestLittleContentIsNotScrubbedAllTheTime: a rate is configured that is far above what is needed.
func TestLittleContentIsNotScrubbedAllTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openShop(t, Options{ScrubRate: 20 << 20})
		for i := range 10 {
			s.put(fmt.Sprint(i), 1000)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		s.scrub(ctx)
		if n := s.Stats().Scrubbed; n < 10 || n > 100 {
			t.Errorf("10 were read through %d times in ten minutes", n)
		}
	})
}

// TestAClockThatWasAheadEndsNoVerification: content was verified while the clock was wrong.
func TestAClockThatWasAheadEndsNoVerification(t *testing.T) {
	clock := time.Now()
	s := openShop(t, Options{VerifyAfter: time.Hour, Now: func() time.Time { return clock }})
	d := s.put("content", 1000)
	must(t, os.Chtimes(s.path(d), time.Time{}, time.Now())) // it was touched, so it is verified
	clock = clock.AddDate(50, 0, 0)
	if _, ok := s.read(d); !ok {
		t.Fatal("not served")
	}
	clock = clock.AddDate(-49, 0, 0)
	f, ok := s.Blob(t.Context(), d)
	if !ok || !s.Due(f) {
		t.Error("not due a year later, nor for half a century")
	}
	f.Close()
}

// TestADirectoryThatIsGoneIsTrouble: somebody removes, or unmounts, all of it.
func TestADirectoryThatIsGoneIsTrouble(t *testing.T) {
	s := openShop(t, Options{})
	must(t, os.RemoveAll(s.opts.Dir))
	body := contentOf("content", 100)
	if err := s.Put(digest.FromBytes(body), body); err == nil {
		t.Fatal("kept")
	}
	s.examine()
	if s.Stats().Trouble == "" {
		t.Error("nothing can be kept, and nobody is told")
	}
	s.close()
}

// TestAFileInPlaceOfADirectoryHeals: content that belongs there can be kept.
func TestAFileInPlaceOfADirectoryHeals(t *testing.T) {
	for what, path := range map[string]string{"two letters": "", "algorithm": ".."} {
		t.Run(what, func(t *testing.T) {
			s := openShop(t, Options{})
			d := s.put("content", 100)
			dir := filepath.Join(filepath.Dir(s.path(d)), path)
			must(t, os.RemoveAll(dir))
			must(t, os.WriteFile(dir, nil, 0o640))
			s.read(d)
			body := contentOf("content", 100)
			if err := s.Put(d, body); err != nil {
				t.Error(err)
			}
			if _, ok := s.read(d); !ok {
				t.Error("it does not heal")
			}
		})
	}
}

// TestFirstByteDoesNotWaitForVerification of content that takes long to read through: it comes, and its last byte if it is right.
func TestFirstByteDoesNotWaitForVerification(t *testing.T) {
	for _, damaged := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var hold chan struct{}
			s := openShop(t, Options{Now: func() time.Time {
				if hold != nil {
					<-hold
				}
				return time.Now()
			}})
			d := s.put("content", 100_000)
			if damaged {
				s.flip(d, false)
			} else {
				must(t, os.Chtimes(s.path(d), time.Now(), time.Now()))
			}
			hold = make(chan struct{})
			var f *disk.Content
			var ok bool
			go func() { f, ok = s.Blob(context.Background(), d) }()
			<-time.After(2 * patience)
			close(hold) // for who is being served asks for the time too
			synctest.Wait()
			if !ok || !s.Due(f) {
				t.Fatal("not served while it is being verified, or believed")
			}
			w := s.Watch(f, d)
			got, err := io.ReadAll(w)
			if damaged == (err == nil) || len(got) < 99_999 || damaged == (len(got) == 100_000) {
				t.Errorf("damaged %v: %d bytes, %v", damaged, len(got), err)
			}
			must(t, w.Close())
			if s.Has(d) == damaged {
				t.Errorf("damaged %v, kept %v", damaged, s.Has(d))
			}
		})
	}
}
