package fill

import (
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// moody is a source that answers for all contents, and has its moods.
type moody struct {
	m     *model
	rate  int // bytes a second of a stream
	whole bool

	mu      sync.Mutex
	fetched map[digest.Digest][]byte // how often each block of a content was sent
	open    int
	twice   int64 // bytes, of contents whose account was closed
}

var errMoody = errors.New("connection reset by peer")

const accounted = 4 << 10 // bytes of a block

func (s *moody) of(d digest.Digest) Source { return moodyBlob{s, d} }

type moodyBlob struct {
	*moody
	d digest.Digest
}

func (moodyBlob) Distrust(origin string) { panic("distrusted, and did not lie: " + origin) }

func (s moodyBlob) Open(ctx context.Context, r Request) (Stream, error) {
	content := s.m.contents[s.d]
	st := &moodyStream{s: s, ctx: ctx, content: content, pos: r.Offset, end: int64(len(content)), cut: math.MaxInt64}
	if r.Length >= 0 && !s.whole {
		st.end = r.Offset + r.Length
	}
	if !s.m.calm.Load() {
		switch rand.IntN(12) {
		case 0:
			return Stream{}, errMoody
		case 1:
			st.cut = st.pos + rand.Int64N(1<<20)
		case 2:
			if r.Beside > 0 {
				return Stream{}, errThrottled
			}
		case 3:
			st.stall = true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open++
	return Stream{Body: st, Size: int64(len(content)), Origin: "moody"}, nil
}

type moodyStream struct {
	s             moodyBlob
	ctx           context.Context
	content       []byte
	pos, end, cut int64
	stall         bool
}

func (st *moodyStream) Read(p []byte) (int, error) {
	wait := time.Duration(len(p)) * time.Second / time.Duration(st.s.rate)
	if st.stall {
		wait, st.stall = wait+10*time.Second, false
	}
	if err := sleep(st.ctx, wait); err != nil {
		return 0, err
	}
	if st.pos >= st.end {
		return 0, io.EOF
	}
	if st.pos >= st.cut {
		return 0, errMoody
	}
	n := copy(p, st.content[st.pos:min(st.end, st.cut)])
	st.s.sent(st.pos, int64(n))
	st.pos += int64(n)
	return n, nil
}

func (st *moodyStream) Close() error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	st.s.open--
	return nil
}

// sent takes down what went over the line: each block by its first byte.
func (s moodyBlob) sent(from, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := s.fetched[s.d]
	if counts == nil {
		counts = make([]byte, (len(s.m.contents[s.d])+accounted-1)/accounted)
		s.fetched[s.d] = counts
	}
	for at := (from + accounted - 1) / accounted * accounted; at < from+n; at += accounted {
		counts[at/accounted]++
	}
}

// forget begins the account of a content anew; what had been fetched twice until then is taken down.
func (s *moody) forget(d digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.twice += twice(s.fetched[d])
	delete(s.fetched, d)
}

func twice(counts []byte) (bytes int64) {
	for _, n := range counts {
		bytes += max(0, int64(n)-1) * accounted
	}
	return bytes
}

// account fails if anything was fetched twice but for a kill, which loses what was not in the last state and what was on
// its way.
func (s *moody) account() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open != 0 {
		s.m.t.Errorf("%d streams were left open", s.open)
	}
	lost := int64(0)
	for _, d := range s.m.digests {
		s.twice += twice(s.fetched[d])
		lost += int64(s.m.kills) * (max(1<<20, int64(len(s.m.contents[d]))/64) + maxWorkers*chunk)
	}
	if s.m.t.Logf("%d bytes were fetched twice; %d kills may lose %d", s.twice, s.m.kills, lost); s.twice > lost {
		s.m.t.Errorf("%d bytes were fetched twice, kills account for %d", s.twice, lost)
	}
}
