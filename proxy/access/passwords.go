package access

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/entrepot/entrepot/upstream/watched"
)

const (
	// rightFor is how long a pair of a user and a password that was right is remembered since it last came, and wrongFor one that was
	// wrong: a check takes tens of milliseconds of a processor, and a pull makes ten requests.
	rightFor = 5 * time.Minute
	wrongFor = 5 * time.Second

	// maxPairs bounds the pairs that are remembered of each sort, at some hundred bytes each.
	maxPairs = 4096

	// maxWaiting is how many checks may wait for a processor, for each that there is, and patience for how long.
	maxWaiting = 64
	patience   = 10 * time.Second

	// ofAnAddress is how much of the queue one address may have: others get in beside one that tries passwords.
	ofAnAddress = 4 // the inverse of it

	// lookEvery is how often the file is looked at, at most.
	lookEvery = time.Second

	maxFile = 4 << 20 // bytes; a line has some 80

	// maxCost is the highest cost of a hash that is taken, and it is seconds already: each further one doubles that.
	maxCost = 16

	// used is how much of a password bcrypt looks at, in bytes. What makes the files looks at no more of it.
	used = 72
)

// Passwords are those of an htpasswd file, which is read again when it has changed. Its methods may be called concurrently.
type Passwords struct {
	file    *watched.File
	changed func(error)
	key     [32]byte // of the pairs that are remembered: what is in memory tells nobody anything
	turns   chan struct{}
	queue   chan struct{}
	compare func(hash, password []byte) error

	roll atomic.Pointer[roll]

	looking sync.Mutex // held by who looks at the file; nobody waits for it
	// guards following
	version int // of the file that roll is from, or that is no good
	looked  time.Time

	mu sync.Mutex
	// guards following
	right, wrong map[pair]time.Time // until when
	checks       map[pair]*check    // under way
	queued       map[string]int     // how many wait for a processor, by the address that they came from
}

// check is one that is under way, for all who come with the same pair meanwhile: a fleet that does is one to check, and not sent away.
type check struct {
	done chan struct{} // closed when it is over
	err  error         // why it came to nothing, if done is closed
}

// roll is what a file says.
type roll struct {
	hashes map[string][]byte // by name; at least one
	names  []string          // sorted
}

// pair is a keyed hash of a user, a password, and what it was compared with: in another file's light it is another.
type pair [sha256.Size]byte

// OpenPasswords reads an htpasswd file: lines of a name, a colon, and a bcrypt hash, as htpasswd -B makes them; empty ones and
// such as begin with # are left out. A file that names nobody is an error: it is one that somebody is still writing, or the wrong
// one, sooner than a wish to let nobody in. Whenever it has been read again, changed is told: by nil that the new passwords hold, or
// why the old ones still do. It may be nil.
func OpenPasswords(path string, changed func(error)) (*Passwords, error) {
	if changed == nil {
		changed = func(error) {}
	}
	processors := max(runtime.GOMAXPROCS(0)/2, 1) // for checks: who needs none should not wait for one
	p := &Passwords{file: watched.New(path, maxFile), changed: changed, turns: make(chan struct{}, processors), queue: make(chan struct{}, maxWaiting*processors),
		compare: bcrypt.CompareHashAndPassword, right: make(map[pair]time.Time), wrong: make(map[pair]time.Time),
		checks: make(map[pair]*check), queued: make(map[string]int)}
	_, _ = rand.Read(p.key[:]) // never fails
	p.looking.Lock()
	defer p.looking.Unlock()
	p.looked = time.Now()
	if _, err := p.readLocked(); err != nil {
		return nil, err
	}
	return p, nil
}

// Check reports whether the password, which came from an address, is the user's. It takes as long for a user who is not known as for
// one who is. The error is ErrBusy, or that of ctx.
func (p *Passwords) Check(ctx context.Context, from, user, password string) (right bool, err error) {
	hash, known := p.lookup(user)
	this := p.pair(user, password, hash)
	for {
		if right, remembered := p.recall(this); remembered {
			return right, nil
		}
		under, others := p.join(this)
		if !others {
			defer func() { p.settle(this, under, err) }()
			return p.check(ctx, from, this, hash, known, password)
		}
		select {
		case <-under.done:
			if errors.Is(under.err, ErrBusy) { // and would be again; what else it may be is that its client has left
				return false, under.err
			}
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// check compares a pair, and remembers what came of it.
func (p *Passwords) check(ctx context.Context, from string, this pair, hash []byte, known bool, password string) (right bool, err error) {
	if right, remembered := p.recall(this); remembered { // since just now
		return right, nil
	}
	if err := p.turn(ctx, from); err != nil {
		return false, err
	}
	defer func() { <-p.turns }()
	right = p.compare(hash, []byte(password[:min(len(password), used)])) == nil && known
	p.remember(this, right)
	return right, nil
}

// join returns the check of a pair that is under way; if there was none, it is the caller's, who settles it.
func (p *Passwords) join(this pair) (under *check, others bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if under, others = p.checks[this]; !others {
		under = &check{done: make(chan struct{})}
		p.checks[this] = under
	}
	return under, others
}

// settle ends a check. What came of it is remembered by then.
func (p *Passwords) settle(this pair, under *check, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	under.err = err
	delete(p.checks, this)
	close(under.done)
}

// turn waits for a processor, on behalf of an address.
func (p *Passwords) turn(ctx context.Context, from string) error {
	if !p.enqueue(from) {
		return ErrBusy
	}
	defer p.leave(from)
	select {
	case p.queue <- struct{}{}:
		defer func() { <-p.queue }()
	default:
		return ErrBusy
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case p.turns <- struct{}{}:
		return nil
	case <-late.C:
		return ErrBusy
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// enqueue counts one more who waits on behalf of an address, unless there are too many.
func (p *Passwords) enqueue(from string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.queued[from] >= cap(p.queue)/ofAnAddress {
		return false
	}
	p.queued[from]++
	return true
}

func (p *Passwords) leave(from string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.queued[from]--; p.queued[from] == 0 {
		delete(p.queued, from)
	}
}

// lookup returns a user's hash; that of another for one who is not known, always the same one.
func (p *Passwords) lookup(user string) (hash []byte, known bool) {
	p.refresh()
	now := p.roll.Load()
	if hash, known = now.hashes[user]; known {
		return hash, true
	}
	at := p.pair(user, "", nil)
	return now.hashes[now.names[binary.BigEndian.Uint64(at[:])%uint64(len(now.names))]], false
}

func (p *Passwords) pair(user, password string, hash []byte) (is pair) {
	h := hmac.New(sha256.New, p.key[:])
	for _, part := range [][]byte{[]byte(user), []byte(password), hash} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part)))) // so that what ends one is not what begins the next
		h.Write(part)
	}
	h.Sum(is[:0])
	return is
}

func (p *Passwords) recall(this pair) (right, remembered bool) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if until, ok := p.right[this]; ok && now.Before(until) {
		p.right[this] = now.Add(rightFor) // who is at work should not queue with strangers; and the pair is of a hash that the file has
		return true, true
	}
	until, ok := p.wrong[this]
	return false, ok && now.Before(until)
}

// remember keeps wrong pairs apart from the right ones, which they should not push out.
func (p *Passwords) remember(this pair, right bool) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	pairs, until := p.wrong, now.Add(wrongFor)
	if right {
		pairs, until = p.right, now.Add(rightFor)
	}
	if len(pairs) >= maxPairs {
		clear(pairs)
	}
	pairs[this] = until
}

// refresh reads the file again if it has changed. One that can't be read, or is no such file, leaves things as they are.
func (p *Passwords) refresh() {
	if !p.looking.TryLock() {
		return // somebody is at it
	}
	defer p.looking.Unlock()
	now := time.Now()
	if now.Sub(p.looked) < lookEvery {
		return
	}
	p.looked = now
	if changed, err := p.readLocked(); changed { // else what is wrong with it has been told
		p.changed(err)
	}
}

func (p *Passwords) readLocked() (changed bool, err error) {
	text, version, err := p.file.Read()
	if version == p.version {
		return false, err
	}
	p.version = version
	if err != nil {
		return true, err
	}
	hashes, err := parse(text)
	if err != nil {
		return true, fmt.Errorf("%s: %w", p.file.Path(), err)
	}
	p.roll.Store(&roll{hashes, slices.Sorted(maps.Keys(hashes))})
	return true, nil
}

// parse reads an htpasswd file with at least one user. Its errors name the line, and nothing that stands after the name.
func parse(text []byte) (map[string][]byte, error) {
	users, n := make(map[string][]byte), 0
	for line := range bytes.Lines(text) {
		n++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		name, hash, ok := strings.Cut(string(line), ":")
		if !ok || name == "" {
			return nil, fmt.Errorf("line %d is not a name, a colon and a bcrypt hash", n)
		}
		cost, err := bcrypt.Cost([]byte(hash))
		switch {
		case err != nil || len(hash) != 60:
			return nil, fmt.Errorf("line %d: the password of %.100q is not hashed by bcrypt: make it anew by htpasswd -B", n, name)
		case cost > maxCost:
			return nil, fmt.Errorf("line %d: the hash of %.100q has a cost of %d, and each check would take seconds: at most %d", n, name, cost, maxCost)
		case users[name] != nil:
			return nil, fmt.Errorf("line %d: %.100q is there twice", n, name)
		}
		users[name] = []byte(hash)
	}
	if len(users) == 0 {
		return nil, errors.New("it has no user: add one by htpasswd -B")
	}
	return users, nil
}
