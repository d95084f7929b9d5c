package disk

import (
	"errors"
	"sync"

	"github.com/opencontainers/go-digest"
)

// ErrInUse says that content is being read, or still being written.
var ErrInUse = errors.New("disk: in use")

// uses is who has content open, by digest: who reads it, and who writes it, whose file goes on being read after it has got its
// name.
//
// One is counted from before a name is opened until after the file was closed. So when a name is gone, nobody has the file open
// who is not counted, and nobody will who comes later: if nobody is counted then, its blocks are free, and else they are at
// the latest when nobody is counted any more. Whether those who are counted have open this file or another one of the same
// digest is not known: what was there before may stay counted for longer than it has blocks, but never the other way.
type uses struct {
	mu sync.Mutex
	of map[digest.Digest]use
}

type use struct {
	n    int
	held int64 // blocks of files without a name, in bytes
}

func (u *uses) begin(d digest.Digest) {
	u.mu.Lock()
	defer u.mu.Unlock()
	is := u.of[d]
	is.n++
	u.of[d] = is
}

// end returns how many bytes are free now.
func (u *uses) end(d digest.Digest) (freed int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	is := u.of[d]
	if is.n--; is.n == 0 {
		delete(u.of, d)
		return is.held
	}
	u.of[d] = is
	return 0
}

func (u *uses) any(d digest.Digest) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.of[d].n > 0
}

// gone says that a file of so many bytes has no name any more, and returns what it counts as from now on.
func (u *uses) gone(d digest.Digest, sum int64) account {
	u.mu.Lock()
	defer u.mu.Unlock()
	is, ok := u.of[d]
	if !ok {
		return nowhere
	}
	is.held += sum
	u.of[d] = is
	return held
}

// endUse ends one use of the digest, whose file is closed.
func (s *Store) endUse(d digest.Digest) {
	if freed := s.uses.end(d); freed > 0 {
		s.space.move(freed, held, nowhere)
	}
}
