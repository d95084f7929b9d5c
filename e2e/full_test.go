package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/entrepot/entrepot/e2e/bench/origin"
	"github.com/entrepot/entrepot/e2e/testbed"
)

// A disk of 200 MiB, images of 600 MiB pulled in turn, and somebody else who takes the rest of the disk to the last byte now
// and then: no pull fails, no byte is wrong, the process lives and is ready, and when the space is back the cache is as ever.
func TestPromiseFullDisk(t *testing.T) {
	const images = 3
	needRoot(t)
	d := openDisk(t, "size=200m")
	s := openShop(t, origin.Line{}, testbed.EntrepotOptions{DataDir: d.data()})
	ready := s.watchReadiness(t)

	tide := newTide(d.flood, 1, 150<<20)
	for k := range images {
		// One layer is larger than the disk, and most of them would fit.
		i := s.push(t, "library/full", 250<<20, 120<<20, 90<<20, 80<<20, 40<<20, 20<<20)
		if err := s.image(running, i, tide.along); err != nil {
			t.Fatalf("image %d, flood %d: %v", k, tide.turns, err)
		}
	}
	t.Logf("the flood came and went, %d turns, in %d bytes", tide.turns, tide.read)
	if tide.turns < 4 {
		t.Errorf("the disk was full %d times at most: nothing was tried", tide.turns/2)
	}
	if err := d.flood.Fall(); err != nil {
		t.Fatal(err)
	}
	s.worksAsEver(t)
	ready()
}

// The flood comes and goes while the index grows, which has its log in mapped memory: a page that there is no room for would
// kill the process.
func TestPromiseFullDiskWhileTheIndexGrows(t *testing.T) {
	const images, layers, turn = 4, 600, 2 << 20
	needRoot(t)
	d := openDisk(t, "size=48m")
	s := openShop(t, origin.Line{}, testbed.EntrepotOptions{DataDir: d.data()})
	ready := s.watchReadiness(t)
	tide := newTide(d.flood, 5, turn)
	for k := range images {
		sizes := make([]int64, layers)
		for l := range sizes {
			sizes[l] = int64(1 + k + l*4)
		}
		if err := s.image(running, s.push(t, "library/small", sizes...), tide.along); err != nil {
			t.Fatalf("image %d, flood %d: %v", k, tide.turns, err)
		}
	}
	t.Logf("the flood came and went, %d turns", tide.turns)
	if err := d.flood.Fall(); err != nil {
		t.Fatal(err)
	}
	s.worksAsEver(t)
	ready()
}

// A start finds the disk full to the last byte: first with nothing in the data directory, then with what was kept.
func TestPromiseFullDiskAtStart(t *testing.T) {
	needRoot(t)
	d := openDisk(t, "size=200m")
	if err := d.flood.Rise(); err != nil {
		t.Fatal(err)
	}
	s := openShop(t, origin.Line{}, testbed.EntrepotOptions{DataDir: d.data()})
	i := s.push(t, "library/start", 1<<20, 30<<20)
	for range 2 {
		if err := s.image(running, i, nil); err != nil {
			t.Fatalf("started on a full disk: %v", err)
		}
	}
	if err := d.flood.Fall(); err != nil {
		t.Fatal(err)
	}
	s.pullUntilKept(t, i)

	for _, end := range []func() error{s.entrepot.Stop, s.entrepot.Kill} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if err := d.flood.Rise(); err != nil {
			t.Fatal(err)
		}
		if err := s.entrepot.Start(running); err != nil {
			t.Fatalf("started with content on a full disk: %v", err)
		}
		if err := s.image(running, i, nil); err != nil {
			t.Errorf("started with content on a full disk: %v", err)
		}
		if err := s.image(running, s.push(t, "library/start-more", 2<<20, 20<<20), nil); err != nil {
			t.Errorf("started with content on a full disk, new content: %v", err)
		}
		if err := d.flood.Fall(); err != nil {
			t.Fatal(err)
		}
		s.worksAsEver(t)
		s.pullUntilKept(t, i)
	}
}

// There is room, but no file can be made any more: while it runs, and when it starts.
func TestPromiseNoInodes(t *testing.T) {
	needRoot(t)
	d := openDisk(t, "size=200m,nr_inodes=1200")
	s := openShop(t, origin.Line{}, testbed.EntrepotOptions{DataDir: d.data()})
	before := s.push(t, "library/inodes", 1<<20, 3<<20)
	if err := s.image(running, before, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.allHit(before); err != nil {
		t.Fatal(err)
	}
	for _, restart := range []bool{false, true} {
		free, err := takeInodes(d.dir)
		if err != nil {
			t.Fatal(err)
		}
		if restart {
			if err := errors.Join(s.entrepot.Stop(), s.entrepot.Start(running)); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 {
			during := s.push(t, "library/during", 1<<20, 20<<20)
			if err := s.image(running, during, nil); err != nil {
				t.Errorf("restarted %v: %v", restart, err)
			}
		}
		if err := s.image(running, before, nil); err != nil {
			t.Errorf("restarted %v, what was kept: %v", restart, err)
		}
		if err := free(); err != nil {
			t.Fatal(err)
		}
		s.worksAsEver(t)
		s.pullUntilKept(t, before)
	}
}

// takeInodes makes files until no more can be made, and returns what removes them.
func takeInodes(parent string) (free func() error, err error) {
	dir := filepath.Join(parent, "many")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	for k := 0; ; k++ {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint(k)))
		if errors.Is(err, syscall.ENOSPC) {
			return func() error { return os.RemoveAll(dir) }, nil
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
}

// disk is a file system in memory with a data directory, and a flood that can fill the rest of it.
type disk struct {
	dir   string
	flood *testbed.Flood
}

func (d disk) data() string { return filepath.Join(d.dir, "data") }

func openDisk(t *testing.T, options string) disk {
	t.Helper()
	dir, err := bed.MountMemory(options)
	if err != nil {
		t.Fatal(err)
	}
	flood, err := testbed.OpenFlood(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := flood.Close(); err != nil {
			t.Error(err)
		}
	})
	return disk{dir: dir, flood: flood}
}

// tide lets a flood rise and fall at random places of what is read. Its method may be called concurrently.
type tide struct {
	mu sync.Mutex
	// guards following
	flood  *testbed.Flood
	random *rand.Rand
	every  int64 // bytes between two turns at most
	read   int64
	next   int64
	turns  int
}

func newTide(f *testbed.Flood, seed uint64, every int64) *tide {
	return &tide{flood: f, random: rand.New(rand.NewPCG(seed, 2)), every: every, next: every / 2}
}

// along is told of every piece that is read: each is as long as the client's buffer.
func (f *tide) along(int64) error {
	const piece = 32 << 10
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.read += piece; f.read < f.next {
		return nil
	}
	f.next = f.read + f.random.Int64N(f.every)
	f.turns++
	if f.turns%2 == 1 {
		return f.flood.Rise()
	}
	return f.flood.Fall()
}

// worksAsEver waits until new content is kept, and is a hit.
func (s *shop) worksAsEver(t *testing.T) {
	t.Helper()
	s.pullUntilKept(t, s.push(t, "library/after", 1<<20+1, 5<<20, 100))
}

// pullUntilKept pulls an image until all of it is in the cache. Each pull has to succeed.
func (s *shop) pullUntilKept(t *testing.T, i origin.Image) {
	t.Helper()
	begun, pulls := time.Now(), 0
	err := testbed.Until(running, i.Repository+" to be kept", func(ctx context.Context) error {
		if err := s.image(ctx, i, nil); err != nil {
			t.Fatalf("pull %d after the trouble: %v", pulls, err)
		}
		pulls++
		for _, path := range paths(i) {
			a, err := s.head(ctx, path)
			if err == nil && !a.hit() {
				err = fmt.Errorf("HEAD %s: verdict %q", path, a.verdict)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: kept after %d pulls, %v", i.Repository, pulls, time.Since(begun).Round(time.Millisecond))
}

// watchReadiness asks again and again whether the mirror is ready, until the function that it returns is called: it always is.
func (s *shop) watchReadiness(t *testing.T) (end func()) {
	const every = 20 * time.Millisecond
	ctx, stop := context.WithCancel(running)
	var watch sync.WaitGroup
	watch.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		said := ""
		for {
			text, err := s.entrepot.Readiness(running)
			if err != nil {
				t.Errorf("it is not ready any more: %v", err)
				return
			}
			if text != said {
				said = text
				t.Logf("/readyz says: %s", text)
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	end = func() {
		stop()
		watch.Wait()
	}
	t.Cleanup(end) // a test that failed does not come to it
	return end
}
