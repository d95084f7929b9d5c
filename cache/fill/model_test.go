package fill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache/disk"
)

// model holds fills on a real disk against the plainest model there is, the contents in memory: readers come, read parts or
// all, seek and leave at random; the source breaks off, refuses, stalls and ignores ranges at random; the program
// is stopped or killed and started again at random. By the clock of synctest that takes no time.
type model struct {
	t        *testing.T
	contents map[digest.Digest][]byte
	digests  []digest.Digest
	src      *moody
	life     atomic.Pointer[life]
	calm     atomic.Bool // no more faults
	steps    atomic.Int64
	killing  bool // at some restarts
	kills    int
	evicting sync.Mutex
}

// life is one run of the program, on a data directory.
type life struct {
	*Fills
	store *disk.Store
	dir   string
}

func TestFillsAgreeWithModel(t *testing.T) {
	steps := int64(0)
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			before := descriptors(t)
			synctest.Test(t, func(t *testing.T) { steps += runModel(t, rand.New(rand.NewPCG(seed, 7)), seed%2 == 0) })
			if after := descriptors(t); after > before {
				t.Errorf("%d descriptors are open, %d were before", after, before)
			}
		})
	}
	if t.Logf("%d steps", steps); steps < 2000 {
		t.Errorf("%d steps only", steps)
	}
}

func runModel(t *testing.T, rng *rand.Rand, killing bool) int64 {
	m := &model{t: t, killing: killing, contents: make(map[digest.Digest][]byte)}
	for _, most := range []int{1 << 20, 6 << 20, 24 << 20} {
		content, d := random(most/2 + rng.IntN(most/2))
		m.contents[d] = content
		m.digests = append(m.digests, d)
	}
	m.src = &moody{m: m, fetched: make(map[digest.Digest][]byte), rate: 1 << (22 + rng.IntN(6)), whole: rng.IntN(4) == 0}
	m.begin(t.TempDir())
	var readers, restarts sync.WaitGroup
	for range 12 {
		seed := rng.Uint64()
		readers.Go(func() { m.wander(rand.New(rand.NewPCG(seed, 1))) })
	}
	done := make(chan struct{})
	restarts.Go(func() { m.restart(rng, done) })
	readers.Wait()
	close(done)
	restarts.Wait()
	m.calm.Store(true)
	m.settle()
	return m.steps.Load()
}

func (m *model) begin(dir string) {
	store, err := disk.Open(m.t.Context(), disk.Options{Dir: dir})
	if err != nil {
		m.t.Error(err)
		return
	}
	m.life.Store(&life{store: store, dir: dir, Fills: New(Options{
		Fits: func(int64) bool { return true },
		Kept: store.Has,
		Create: func(d digest.Digest, size, first int64) (File, error) {
			return store.Create(d, size, first)
		},
		Parked:    func(d digest.Digest) (File, []byte, bool, bool) { return store.Parked(d) },
		Final:     func(error) bool { return false },
		Throttled: func(err error) bool { return errors.Is(err, errThrottled) },
	})})
}

// restart ends the program and begins it anew, until done: in good order, or as if it had been killed.
func (m *model) restart(rng *rand.Rand, done chan struct{}) {
	for range 12 {
		select {
		case <-time.After(time.Duration(rng.IntN(3000)) * time.Millisecond):
		case <-done:
			return
		}
		old := m.life.Load()
		dir := old.dir
		if m.killing && rng.IntN(2) == 0 {
			dir = m.t.TempDir()
			m.snapshot(old.dir, dir)
			m.kills++
		}
		old.end(m.t)
		m.begin(dir)
	}
}

func (l *life) end(t *testing.T) {
	l.Close()
	if err := l.store.Close(); err != nil {
		t.Error(err)
	}
}

// snapshot copies what a kill at this moment would leave behind: the states first, for what they speak of was written
// before.
func (m *model) snapshot(from, to string) {
	var names []string
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was on its way elsewhere
		}
		if err == nil && !e.IsDir() && !strings.HasPrefix(path, filepath.Join(from, "index")) {
			names = append(names, strings.TrimPrefix(path, from))
		}
		return err
	})
	if err != nil {
		m.t.Error(err)
	}
	for _, states := range []bool{true, false} {
		for _, name := range names {
			if strings.HasSuffix(name, ".state") != states {
				continue
			}
			b, err := os.ReadFile(from + name)
			if err != nil {
				continue // renamed since
			}
			if err := errors.Join(os.MkdirAll(filepath.Dir(to+name), 0o750), os.WriteFile(to+name, b, 0o640)); err != nil {
				m.t.Error(err)
			}
		}
	}
}

// wander is a client: it pulls wholes and parts, and leaves when it likes.
func (m *model) wander(rng *rand.Rand) {
	for range 40 {
		d := m.digests[rng.IntN(len(m.digests))]
		ctx, leave := context.WithTimeout(m.t.Context(), time.Duration(1+rng.IntN(20_000))*time.Millisecond)
		if err := m.read(ctx, d, rng); err != nil && !m.excused(ctx, err) {
			m.t.Errorf("%v", err)
		}
		leave()
		elapse(time.Duration(rng.IntN(300)) * time.Millisecond)
	}
}

// excused reports whether an error is one that a reader may get: its own leaving, a program that ends, or a source that had
// failed too often in a row.
func (m *model) excused(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, ErrClosed) || errors.Is(err, errMoody)
}

// read is one request: a part, or all, read at random speed to its end or not.
func (m *model) read(ctx context.Context, d digest.Digest, rng *rand.Rand) error {
	m.steps.Add(1)
	content, l := m.contents[d], m.life.Load()
	size := int64(len(content))
	part := Whole
	switch from := rng.Int64N(size); rng.IntN(4) {
	case 0:
		part = Part{From: from, To: from + 1 + rng.Int64N(1<<20), Ranged: true}
	case 1:
		part = Part{From: from, To: math.MaxInt64, Ranged: true}
	case 2:
		part = Part{From: -1 - rng.Int64N(1<<16), To: math.MaxInt64, Ranged: true}
	}
	r, _, err := l.Join(ctx, d, size, m.src.of(d), part)
	if errors.Is(err, ErrKept) {
		if rng.IntN(2) == 0 {
			m.evict(l, d)
		}
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Close()
	at := part.of(size)
	for range 1 + rng.IntN(3) {
		m.steps.Add(1)
		if _, err := r.Seek(at.from, io.SeekStart); err != nil {
			return err
		}
		want := content[at.from:at.to]
		if rng.IntN(3) == 0 {
			want = want[:rng.Int64N(int64(len(want))+1)] // it leaves early
		}
		got := make([]byte, len(want))
		if n, err := readFull(r, got, rng); err != nil {
			if !bytes.Equal(got[:n], want[:n]) {
				return fmt.Errorf("wrong bytes before %v", err)
			}
			return err
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("wrong bytes in [%d,%d)", at.from, at.to)
		}
		at.from = rng.Int64N(size)
		at.to = min(size, at.from+1+rng.Int64N(1<<20))
	}
	return nil
}

// readFull fills p by both ways to read, in turns.
func readFull(r *Reader, p []byte, rng *rand.Rand) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		if rng.IntN(2) == 0 {
			m, err = r.Read(p[n:])
		} else {
			var sent bytes.Buffer
			_, err = r.Send(&sent, 1+rng.Int64N(int64(len(p)-n)))
			m = copy(p[n:], sent.Bytes())
		}
		n += m
	}
	if n == len(p) {
		err = nil
	}
	return n, err
}

// evict removes what is kept: what is fetched from then on is not fetched twice.
func (m *model) evict(l *life, d digest.Digest) {
	m.evicting.Lock()
	defer m.evicting.Unlock()
	if !l.store.Has(d) {
		return
	}
	m.src.forget(d) // while it is kept nobody fetches it
	if err := l.store.Remove(d, int64(len(m.contents[d]))); err != nil && m.life.Load() == l {
		m.t.Error(err)
	}
}

// kept compares what is kept with the content.
func (m *model) kept(l *life, d digest.Digest) error {
	f, err := l.store.Blob(d)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrClosed, err) // that life has ended
	}
	defer f.Close()
	got, err := io.ReadAll(f)
	if err == nil && !bytes.Equal(got, m.contents[d]) {
		err = errors.New("kept content is wrong")
	}
	return err
}

// settle pulls everything once more, without faults, and looks at what is left then.
func (m *model) settle() {
	l := m.life.Load()
	for d, content := range m.contents {
		r, _, err := l.Join(m.t.Context(), d, int64(len(content)), m.src.of(d), Whole)
		if err == nil {
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, content) {
				m.t.Errorf("%d bytes of %d: %v", len(got), len(content), err)
			}
			r.Close()
		} else if !errors.Is(err, ErrKept) {
			m.t.Error(err)
		}
		for l.InFlight(d) {
			synctest.Wait()
		}
		if err := m.kept(l, d); err != nil {
			m.t.Error(err)
		}
	}
	l.end(m.t)
	if left, err := os.ReadDir(filepath.Join(l.dir, "partial")); err != nil || len(left) > 0 {
		m.t.Errorf("left in partial: %v, %v", left, err)
	}
	m.src.account()
}

// descriptors counts those that the process has open, where the system shows them.
func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}
