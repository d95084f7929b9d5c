package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/entrepot/entrepot/e2e/bench/origin"
	"github.com/entrepot/entrepot/e2e/testbed"
)

const (
	// crashRounds and crashSeed are what `make crash` sets. A seed makes the same load and the same kills, as far as processors
	// and disks allow.
	crashRounds, crashSeed = "CRASH_ROUNDS", "CRASH_SEED"
	defaultCrashRounds     = 50

	crashCap = 64 << 20
	// crashImages have crashLayers each of what is shared; all together are some three times the cap.
	crashImages, crashLayers, crashShared = 16, 6, 60
	crashClients                          = 8
	// crashLoad is how many bytes clients get at most until the kill comes, and crashStart how late it comes at most to a
	// process that is starting.
	crashLoad  = 48 << 20
	crashStart = 40 * time.Millisecond
)

// A process that is killed anywhere in a mixed load starts again on what it left: what it answers after that is right, what
// was kept is kept, and nothing is left lying about.
func TestPromiseKilledAnywhere(t *testing.T) {
	rounds, err := strconv.Atoi(cmp.Or(os.Getenv(crashRounds), strconv.Itoa(defaultCrashRounds)))
	if err != nil {
		t.Fatalf("%s: %v", crashRounds, err)
	}
	seed, err := strconv.ParseUint(cmp.Or(os.Getenv(crashSeed), "1"), 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", crashSeed, err)
	}
	t.Logf("seed %d; %s=%d repeats this", seed, crashSeed, seed)
	t.Run("under a small cap", func(t *testing.T) {
		c := openCrash(t, seed,
			fmt.Sprintf("cache: {max_size: %dMiB, min_free: 16MiB, tag_ttl: 50ms, read_ahead: layers}\n", crashCap>>20))
		c.cap = crashCap
		c.play((rounds + 1) / 2)
	})
	t.Run("with room for all", func(t *testing.T) {
		c := openCrash(t, seed+1, "cache: {min_free: 16MiB, tag_ttl: 50ms, read_ahead: layers, when_abandoned: park}\n")
		c.play(rounds / 2)
	})
}

// crash is a mirror that is killed again and again.
type crash struct {
	*shop
	t      *testing.T
	random *rand.Rand
	cap    int64 // 0: there is room for all, and nothing may be lost
	layers []origin.Blob

	mu sync.Mutex
	// guards following
	images []origin.Image             // those that the tags name, at upstream
	named  map[string]map[string]bool // all that the tag of a repository ever named, by repository
	hits   map[string]hit             // blobs that were kept since the last start, by digest
	kills  struct {
		inLoad, atStart, hits, gone int
		slowest                     time.Duration
	}
}

// hit is a blob that was a hit, as one asks for it.
type hit struct {
	image origin.Image
	blob  origin.Blob
}

func openCrash(t *testing.T, seed uint64, config string) *crash {
	t.Helper()
	c := &crash{
		t: t, random: rand.New(rand.NewPCG(seed, 3)), named: map[string]map[string]bool{}, hits: map[string]hit{},
		// So slow that a kill finds transfers under way.
		shop: openShop(t, origin.Line{Total: 120_000_000}, testbed.EntrepotOptions{Config: config}),
	}
	for range crashShared {
		c.layers = append(c.layers, c.store.Blob(64<<10+c.random.Int64N(6<<20)))
	}
	for k := range crashImages {
		c.images = append(c.images, origin.Image{Repository: fmt.Sprintf("library/crash-%d", k)})
		if err := c.move(k, c.random); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// move has an image's tag name another image, of some layers that others have too.
func (c *crash) move(k int, random *rand.Rand) error {
	var layers []origin.Blob
	for _, l := range random.Perm(len(c.layers))[:crashLayers] {
		layers = append(layers, c.layers[l])
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i, err := c.store.Push(c.images[k].Repository, "1.0", layers...)
	if err != nil {
		return err
	}
	if c.named[i.Repository] == nil {
		c.named[i.Repository] = map[string]bool{}
	}
	c.named[i.Repository][i.Index.Digest] = true
	c.images[k] = i
	return nil
}

// play has it live and die that many times. The first life begins with an empty cache.
func (c *crash) play(rounds int) {
	c.t.Helper()
	for round := range rounds {
		at := 1 + c.random.Int64N(crashLoad)
		if err := c.live(at); err != nil {
			c.t.Fatalf("round %d, killed after %d bytes: %v", round, at, err)
		}
		if c.random.IntN(4) == 0 {
			late := time.Duration(c.random.Int64N(int64(crashStart)))
			if err := c.killStart(late); err != nil {
				c.t.Fatalf("round %d, killed %v after it was started: %v", round, late, err)
			}
		}
		begun := time.Now()
		if err := c.entrepot.Start(running); err != nil {
			c.t.Fatalf("round %d, killed after %d bytes: it does not start: %v", round, at, err)
		}
		c.kills.slowest = max(c.kills.slowest, time.Since(begun))
		if err := c.check(); err != nil {
			c.t.Fatalf("round %d, killed after %d bytes: %v", round, at, err)
		}
	}
	k := c.kills
	c.t.Logf("killed %d times in the load, %d times at the start; %d hits were hits again, %d were gone; the slowest start took %v",
		k.inLoad, k.atStart, k.hits, k.gone, k.slowest.Round(time.Millisecond))
	if k.hits == 0 && rounds > 1 {
		c.t.Error("nothing was a hit after any kill: nothing was tried")
	}
}

// live has clients ask for all kinds of things until they have got so many bytes, and kills it then.
func (c *crash) live(bytes int64) error {
	var (
		got    atomic.Int64
		killed atomic.Bool
		now    = make(chan struct{})
		once   sync.Once
	)
	ctx, cancel := context.WithCancel(running)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	for range crashClients {
		random := rand.New(rand.NewPCG(c.random.Uint64(), 4))
		g.Go(func() error {
			for !killed.Load() {
				n, err := c.something(ctx, random)
				// What fails because the process is gone is no failure; content that is wrong always is.
				if err != nil && (errors.Is(err, errWrong) || !killed.Load()) {
					return err
				}
				if got.Add(n) >= bytes {
					once.Do(func() { close(now) })
				}
			}
			return nil
		})
	}
	select {
	case <-now:
	case <-ctx.Done(): // a client failed, and Wait says how
	}
	// Before the signal: what fails from here on may be because of it.
	killed.Store(true)
	err := c.entrepot.Kill()
	c.transport.CloseIdleConnections()
	c.kills.inLoad++
	return errors.Join(g.Wait(), err)
}

// killStart starts it and kills it a moment later.
func (c *crash) killStart(late time.Duration) error {
	if err := c.entrepot.Begin(running); err != nil {
		return err
	}
	moment := time.NewTimer(late)
	defer moment.Stop()
	<-moment.C
	c.kills.atStart++
	return c.entrepot.Kill()
}

// something is one thing that a client may do, or that happens at upstream. It returns how many bytes the client got.
func (c *crash) something(ctx context.Context, random *rand.Rand) (int64, error) {
	k := random.IntN(crashImages)
	c.mu.Lock()
	i := c.images[k]
	c.mu.Unlock()
	l := i.Layers[random.IntN(len(i.Layers))]
	switch random.IntN(12) {
	case 0:
		return 0, c.move(k, random)
	case 1, 2, 3:
		return c.pull(ctx, i)
	case 4:
		a, err := c.head(ctx, i.BlobPath(l.Digest))
		c.note(i, l, a, err)
		return 0, err
	default:
		a, err := c.anything(ctx, random, i, l)
		c.note(i, l, a, err)
		return l.Size, err // about as much: it only spreads the kills
	}
}

// pull pulls an image by its tag, which may move meanwhile, and all of its blobs.
func (c *crash) pull(ctx context.Context, i origin.Image) (int64, error) {
	a, err := c.document(ctx, i.ManifestPath(i.Tag))
	if err != nil {
		return 0, err
	}
	c.mu.Lock()
	was := c.named[i.Repository][a.digest]
	c.mu.Unlock()
	if !was {
		return 0, fmt.Errorf("%s:%s names %s, which it never did: %w", i.Repository, i.Tag, a.digest, errWrong)
	}
	for _, path := range []string{i.ManifestPath(i.Index.Digest), i.ManifestPath(i.Manifest.Digest), i.BlobPath(i.Config.Digest)} {
		if _, err := c.document(ctx, path); err != nil {
			return 0, err
		}
	}
	var bytes int64
	for _, l := range i.Layers {
		a, err := c.blob(ctx, i, l)
		c.note(i, l, a, err)
		if err != nil {
			return bytes, err
		}
		bytes += l.Size
	}
	return bytes, nil
}

// note notes what was a hit and has its name on disk: what has just landed is a hit a moment before that.
func (c *crash) note(i origin.Image, l origin.Blob, a answer, err error) {
	if err != nil || !a.hit() || !c.onDisk(l.Digest) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hits[l.Digest] = hit{i, l}
}
