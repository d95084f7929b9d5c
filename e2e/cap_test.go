package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/entrepot/entrepot/e2e/bench/origin"
	"github.com/entrepot/entrepot/e2e/testbed"
)

const (
	capSize  = 128 << 20
	capFills = 50
	// Who reads at random besides; slow ones have a blob open until some others are here.
	capReaders, capSlow = 12, 10
	// sampleEvery is as often as the system looks up timers. A look costs microseconds.
	sampleEvery = 100 * time.Microsecond
)

// Whatever is asked for at once, and whoever still reads what was evicted: what the data directory takes up, the index
// included, is never more than max_size. The directory has a file system of its own, which tells what is taken at one moment.
func TestPromiseTheCapIsHard(t *testing.T) {
	needRoot(t)
	dir, err := bed.MountMemory("size=1g")
	if err != nil {
		t.Fatal(err)
	}
	// An upstream of 250 MB/s takes some six seconds for what is ten times the cap.
	s := openShop(t, origin.Line{Total: 250_000_000}, testbed.EntrepotOptions{
		DataDir: filepath.Join(dir, "data"), Config: fmt.Sprintf("cache: {max_size: %dMiB, min_free: 16MiB}\n", capSize>>20),
	})
	var sizes []int64
	var all int64
	for k := range int64(capFills) {
		sizes = append(sizes, (k+2)<<20+k*977)
		all += sizes[k]
	}
	if all < 10*capSize {
		t.Fatalf("%d bytes are not ten times the cap", all)
	}
	i := s.push(t, "library/cap", sizes...)

	sampled := sample(dir, s.entrepot)
	capLoad(t, s, i)
	most, at := sampled()
	t.Logf("at most %d bytes of %d, in %d samples; upstream sent %d, %.2f times the cap",
		most, capSize, at.samples, s.upstream.Count().AllBytes(), float64(s.upstream.Count().AllBytes())/capSize)
	if most > capSize {
		t.Errorf("%d bytes were taken up, %d more than max_size allows: %s", most, most-capSize, at.what)
	}
	// A cap that is kept by keeping nothing is none. What is parked takes room too, and transfers whose last byte is here may be
	// on their way to their names.
	ctx, cancel := context.WithTimeout(running, healsWithin)
	defer cancel()
	err = testbed.Until(ctx, "an eighth of the cap to be hits", func(ctx context.Context) error {
		var hits int64
		for _, l := range i.Layers {
			a, err := s.head(ctx, i.BlobPath(l.Digest))
			if err != nil {
				return err
			}
			if a.hit() {
				hits += l.Size
			}
		}
		if hits < capSize/8 {
			return fmt.Errorf("%d bytes are", hits)
		}
		return nil
	})
	if err != nil {
		t.Errorf("%v; %s", err, breakdown(s.entrepot))
	}
}

// capLoad pulls all layers at once while others read at random, and returns when all have done.
func capLoad(t *testing.T, s *shop, i origin.Image) {
	t.Helper()
	ctx, over := context.WithCancel(running)
	defer over()
	here := make([]chan struct{}, len(i.Layers))
	var fills, others sync.WaitGroup
	for k, l := range i.Layers {
		here[k] = make(chan struct{})
		fills.Go(func() {
			defer close(here[k])
			if _, err := s.blob(running, i, l); err != nil {
				t.Error(err)
			}
		})
	}
	for k := range capSlow {
		l := i.Layers[k*4]
		others.Go(func() {
			// It stops in the middle until three others have come and gone, and reads the rest after that.
			_, err := s.body(running, i.BlobPath(l.Digest), l, 0, l.Size, func(read int64) error {
				if read > l.Size/2 {
					for other := k * 4; other < k*4+3; other++ {
						<-here[other+7]
					}
				}
				return nil
			})
			if err != nil {
				t.Errorf("a slow reader: %v", err)
			}
		})
	}
	for seed := range uint64(capReaders) {
		others.Go(func() {
			random := rand.New(rand.NewPCG(seed, 1))
			for ctx.Err() == nil {
				if _, err := s.anything(running, random, i, i.Layers[random.IntN(len(i.Layers))]); err != nil {
					t.Errorf("a random reader: %v", err)
				}
			}
		})
	}
	fills.Wait()
	over()
	others.Wait()
}

// anything asks for the whole of a blob, for a part of it, or leaves in the middle.
func (c customer) anything(ctx context.Context, random *rand.Rand, i origin.Image, b origin.Blob) (answer, error) {
	at := random.Int64N(b.Size)
	switch random.IntN(4) {
	case 0:
		return c.blob(ctx, i, b)
	case 1:
		return c.leave(ctx, i, b, at)
	case 2:
		return c.part(ctx, i, b, at, b.Size)
	default:
		return c.part(ctx, i, b, at, min(b.Size, at+1+random.Int64N(256<<10)))
	}
}

// sampling is what was seen of a data directory.
type sampling struct {
	samples int
	// what tells roughly what took up the most that was ever too much: it is looked up after that was seen.
	what string
}

// sample looks at what is taken of the file system that holds dir, again and again, until the function that it returns is
// called, which tells the most.
func sample(dir string, e *testbed.Entrepot) func() (int64, sampling) {
	var (
		most int64
		seen sampling
		stop = make(chan struct{})
		done sync.WaitGroup
	)
	done.Go(func() {
		tick := time.NewTicker(sampleEvery)
		defer tick.Stop()
		for {
			now, err := testbed.Occupied(dir)
			seen.samples++
			if now > most {
				if most = now; now > capSize {
					seen.what = breakdown(e)
				}
			}
			if err != nil {
				most, seen.what = 1<<62, err.Error()
			}
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	})
	return func() (int64, sampling) {
		close(stop)
		done.Wait()
		return most, seen
	}
}

// breakdown tells what a data directory is made of.
func breakdown(e *testbed.Entrepot) string {
	text := ""
	entries, err := os.ReadDir(e.Data)
	for _, entry := range entries {
		n, failed := testbed.Allocated(filepath.Join(e.Data, entry.Name()))
		text += fmt.Sprintf("%s %d", entry.Name(), n)
		if failed != nil {
			text += fmt.Sprintf(" (%v)", failed)
		}
		text += ", "
	}
	if err != nil {
		text += err.Error() + ", "
	}
	n, err := e.Process.Unlinked()
	text += fmt.Sprintf("open without a name %d", n)
	if err != nil {
		text += fmt.Sprintf(" (%v)", err)
	}
	return text
}
