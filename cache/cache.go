// Package cache decides what is served from where: what is kept, what is fresh, who may have it. It is the one door that
// the proxy knocks on.
//
// Content (blobs and manifests alike) lies in files under its digest, see package keeper; what a tag names and which digest
// belongs to which repository lies in the index, see package index; what is not there yet comes through a fill that all
// who want it share, see package fill; what there is no room for is passed on without being kept, see package relay.
//
// The invariants:
//
//   - Content is kept only after its digest matched, and nobody gets the last byte of a blob before that.
//   - A digest never changes what it stands for: what is kept is not asked for again. A tag is fresh for a while, then
//     asked for by one HEAD, however many want it.
//   - Content is served through a repository only if it belongs there: upstream showed it in that repository, or a manifest
//     of the repository names it and upstream showed it somewhere in that registry. Anything else is asked for first.
//   - When upstream fails, the last good answer is served as stale; but a manifest only if its blobs can be served too.
//   - For an upstream that is gone nobody waits, and for one that is slow nobody who could have a stale answer instead. Any answer
//     starts within 25 s, if it be a refusal.
//   - An upstream's 401, 403 and 404 are answers, and are passed on; a 404 for a moment to others who ask, too. A tag that gets one
//     is forgotten, unless what was deleted is to be kept.
//   - What clients are going to ask for next may be asked for ahead of them, see ahead.go. It is no trouble to anybody.
//   - The disk failing is no reason for a pull to fail: content then streams through.
package cache

import (
	"context"
	"crypto/hmac"
	"crypto/sha256" // as the next, one of the algorithms that digests may name
	_ "crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sync/singleflight"

	"github.com/entrepot/entrepot/cache/fill"
	"github.com/entrepot/entrepot/cache/index"
	"github.com/entrepot/entrepot/cache/keeper"
	"github.com/entrepot/entrepot/cache/relay"
	"github.com/entrepot/entrepot/upstream"
)

// Repository names a repository of a registry.
type Repository = index.Repository

var (
	// ErrUnavailable says that upstream can't be had at the moment, and that what is cached won't do without it.
	ErrUnavailable = errors.New("upstream can't be reached, and the cache can't serve this without it")
	// ErrMismatch says that upstream sent something else than it was asked for. None of it was kept.
	ErrMismatch = errors.New("upstream sent content that does not match its digest")
	// ErrClosed says that the cache is being closed.
	ErrClosed = fill.ErrClosed
)

// Options say how a Cache works. DataDir and Upstreams are required.
type Options struct {
	DataDir  string
	IndexDir string // empty: index/ within DataDir
	MaxSize  int64  // bytes on disk at most; 0: as much as MinFree leaves
	MinFree  int64  // bytes of the file system to leave free

	// These are asked at each use.

	TagTTL            func(repo Repository, tag string) time.Duration // how long a tag, or for "" a listing, is served without asking upstream; nil: it is always asked
	RevalidateTimeout func() time.Duration                            // how long a client waits for that where there is a stale answer; nil: 2 s
	NegativeTTL       func() time.Duration                            // how long upstream is taken at its word that something is not there; nil: 10 s
	KeepDeleted       func(registry string) bool                      // whether a tag is kept that upstream has not any more; nil: none is

	Pinned      func(repo Repository, tag string) bool // whether what a tag names is to stay; nil: nothing is
	ScrubRate   int64                                  // bytes a second at which content is read through; 0: so that it takes a week; -1: it is not
	VerifyAfter time.Duration                          // content that was verified longer ago is verified while it is served; 0: never

	FillWhole     bool // who asks for a part of a blob has all of it fetched
	ParkAbandoned bool // what no client is left for is not fetched any further
	ReadAhead     ReadAhead

	Upstreams map[string]Upstream // by registry name

	FillDone  func(readers int, err error)           // told of each transfer that ended; may be nil
	AheadDone func(registry, kind string, kept bool) // told of each manifest or blob that was read ahead; may be nil
	Healed    func(Damage)                           // told of what was damaged and is right again; may be nil
	Log       *zap.Logger                            // may be nil
	Now       func() time.Time                       // the clock; nil: time.Now
}

// Cache is an open cache. Its methods may be called concurrently.
type Cache struct {
	opts    Options
	log     *zap.Logger
	keeper  *keeper.Keeper
	index   *index.Index
	fills   *fill.Fills
	relays  *relay.Relays
	remotes map[string]*remote
	memory  memory
	absent  absences
	ahead   *ahead

	admissions *admissions
	entrusted  *entrusted

	first     bool        // nothing was kept when it was opened
	stalePins atomic.Bool // what is to stay is not what is pinned

	flights singleflight.Group // small answers under way: manifests, tag checks, HEADs, listings
	ctx     context.Context    // ends when Close is called
	stop    context.CancelFunc

	mu sync.Mutex
	// guards following
	closed bool
	work   sync.WaitGroup // Add only while not closed
}

// Open opens the cache in its data directory, which no other process may have open; it waits a little for one that is
// about to end. It does not wait for what is kept to be counted: that goes on behind, until Close.
func Open(ctx context.Context, opts Options) (*Cache, error) {
	c, err := open(ctx, opts)
	if err == nil {
		c.work.Go(func() {
			c.repin() // before it is known what was kept, and may go
			c.work.Go(func() { c.keeper.Run(c.ctx) })
			c.tend()
		})
	}
	return c, err
}

func open(ctx context.Context, opts Options) (*Cache, error) {
	if opts.Log == nil {
		opts.Log = zap.NewNop()
	}
	opts.setPolicy()
	c := &Cache{opts: opts, log: opts.Log, remotes: make(map[string]*remote), admissions: newAdmissions(), entrusted: newEntrusted()}
	for name, up := range opts.Upstreams {
		c.remotes[name] = &remote{Upstream: up, name: name, c: c, conduct: new(conduct)}
	}
	if err := c.openStores(ctx); err != nil {
		return nil, err
	}
	c.ctx, c.stop = context.WithCancel(context.Background())
	c.fills = fill.New(fill.Options{
		Fits: c.keeper.Fits, Kept: c.keeper.Has, Create: c.create, Parked: c.parked, Final: isFinal, Throttled: isThrottled, Pause: pauseOf, Done: c.fillDone,
		Whole: opts.FillWhole, Park: opts.ParkAbandoned,
	})
	c.relays = relay.New(relay.Options{Final: isFinal})
	c.ahead = newAhead(c, opts.ReadAhead)
	return c, nil
}

// setPolicy puts what stands for it in place of what was left out.
func (o *Options) setPolicy() {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.TagTTL == nil {
		o.TagTTL = func(Repository, string) time.Duration { return 0 }
	}
	if o.RevalidateTimeout == nil {
		o.RevalidateTimeout = func() time.Duration { return 2 * time.Second }
	}
	if o.NegativeTTL == nil {
		o.NegativeTTL = func() time.Duration { return 10 * time.Second }
	}
	if o.KeepDeleted == nil {
		o.KeepDeleted = func(string) bool { return false }
	}
}

func (c *Cache) openStores(ctx context.Context) (err error) {
	c.keeper, err = keeper.Open(ctx, keeper.Options{
		Dir: c.opts.DataDir, MaxSize: c.opts.MaxSize, MinFree: c.opts.MinFree,
		ScrubRate: c.opts.ScrubRate, VerifyAfter: c.opts.VerifyAfter,
		Removed: c.memory.drop, Names: namesOf, Listed: func(d digest.Digest) bool { return c.index.Listed(d) },
		Healed: c.opts.Healed, Log: c.log, Now: c.opts.Now,
	})
	if err != nil {
		return err
	}
	c.first = c.keeper.Counted()
	own := c.indexOptions()
	if own.Claim != nil {
		c.keeper.MakeRoom(ctx)
	}
	if c.index, err = index.Open(own); err != nil {
		return errors.Join(err, c.keeper.Close())
	}
	c.indexOpened()
	return nil
}

// indexOptions say where the index is. Within the data directory it has its share of the room there.
func (c *Cache) indexOptions() index.Options {
	dir := c.opts.IndexDir
	if dir == "" {
		dir = filepath.Join(c.opts.DataDir, "index")
	}
	if within(c.opts.DataDir, dir) {
		return index.Options{Dir: dir, Roomy: c.keeper.Roomy, Claim: c.keeper.Claim, Occupy: c.keeper.Occupy, Mended: c.keeper.Mended, Log: c.log}
	}
	return index.Options{Dir: dir, Roomy: func() bool { return keeper.RoomyAt(dir) }, Mended: c.keeper.Mended, Log: c.log}
}

// within reports whether a path lies in a directory, both as they are written: one may be absolute, and the other not.
func within(dir, path string) bool {
	dir, errDir := filepath.Abs(dir)
	path, errPath := filepath.Abs(path)
	rel, errRel := filepath.Rel(dir, path)
	return errDir == nil && errPath == nil && errRel == nil && filepath.IsLocal(rel)
}

// Close ends what is under way, whose readers get an error, and closes the stores. Complete content is kept.
func (c *Cache) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	c.fills.Close()
	c.relays.Close()
	c.work.Wait()
	c.logged(c.listChanges())
	return errors.Join(c.index.Close(), c.keeper.Close())
}

// Capacity is the size in bytes of the file system that holds, or will hold, a data directory.
func Capacity(dir string) (int64, error) { return keeper.Capacity(dir) }

// create makes a file for a fill, and room for it.
func (c *Cache) create(d digest.Digest, size, first int64) (fill.File, error) {
	l, err := c.keeper.Create(d, size, first)
	if err != nil {
		return nil, err // not l: a nil *Landing is no nil File
	}
	return l, nil
}

// parked opens what is left of an earlier fill.
func (c *Cache) parked(d digest.Digest) (f fill.File, state []byte, intact, ok bool) {
	l, state, intact, ok := c.keeper.Parked(d)
	if !ok {
		return nil, nil, false, false
	}
	return l, state, intact, true
}

// put keeps small content that has been verified. That it could not be kept is logged, and no error for anybody.
func (c *Cache) put(d digest.Digest, content []byte) (kept bool) {
	err := c.keeper.Put(d, content)
	if err != nil {
		c.log.Log(c.severity(err), "not kept", zap.Stringer("digest", d), zap.Error(err))
	}
	return err == nil
}

func (c *Cache) fillDone(r fill.Report) {
	if c.ahead.ended(r.Digest, r.Err) {
		r.Readers-- // to one that was no client
	}
	src := r.Source.(source)
	log := c.log.With(zap.String("repository", src.repo.String()), zap.Stringer("digest", r.Digest),
		zap.Int64("size", r.Size), zap.Int("readers", r.Readers))
	switch {
	case r.Parked:
		log.Debug("parts of a blob kept")
		return
	case r.Err == nil:
		log.Debug("blob kept")
	case errors.Is(r.Err, fill.ErrKept): // nothing was transferred
	case errors.Is(r.Err, fill.ErrClosed):
		log.Info("transfer stopped: what has landed of the blob is kept")
	case isAnswer(r.Err):
		log.Debug("upstream does not give the blob", zap.Error(r.Err))
	case errors.Is(r.Err, fill.ErrDigest):
		log.Error("wrong bytes of a blob: nothing of it was kept, no client got all of it", zap.Error(r.Err))
	case r.Readers == 0:
		log.Debug("blob not read ahead", zap.Error(r.Err))
	case errors.Is(r.Err, fill.ErrStorage):
		log.Log(c.severity(r.Err), "blob not kept", zap.Error(r.Err))
	default: // upstream failed: the errors of its connections are numbered as those of disks are
		log.Warn("blob not kept", zap.Error(r.Err))
	}
	if c.opts.FillDone != nil && !errors.Is(r.Err, fill.ErrKept) {
		c.opts.FillDone(r.Readers, r.Err)
	}
}

// severity is how much the log is to be told of content that could not be kept: as long as the disk is in trouble that is so of all
// content, and has been told.
func (c *Cache) severity(err error) zapcore.Level {
	if c.keeper.Trouble(err) || c.keeper.Troubled() {
		return zapcore.DebugLevel
	}
	return zapcore.WarnLevel
}

// remote returns the registry's upstream. The proxy routes to configured registries only.
func (c *Cache) remote(repo Repository) (*remote, error) {
	r, ok := c.remotes[repo.Registry]
	if !ok {
		return nil, fmt.Errorf("registry %s is not configured", repo.Registry)
	}
	return r, nil
}

// share runs work once for all who ask under the same key at the same time, on a context that no asker's leaving ends, and
// returns its result to each. led tells whether this call was the one that ran it. What its client has presented goes with it; and
// what that one is refused for it is asked for again by those who have presented something else.
func share[T any](ctx context.Context, c *Cache, key string, work func(context.Context) (T, error)) (v T, led bool, err error) {
	v, led, err = shareAs(ctx, c, key, work)
	as := upstream.PresentedIn(ctx)
	if led || as == (upstream.Presented{}) || !isAnswer(err) {
		return v, led, err
	}
	who := as.Sum(hmac.New(sha256.New, c.admissions.key[:]))
	return shareAs(ctx, c, key+" as "+hex.EncodeToString(who), work)
}

// shareAs is share, whoever it is that runs work.
func shareAs[T any](ctx context.Context, c *Cache, key string, work func(context.Context) (T, error)) (v T, led bool, err error) {
	type answer struct {
		v   T
		err error
	}
	presented := upstream.PresentedIn(ctx)
	mine := new(bool) // set in the leader's closure only; read after the channel was received from
	done := c.flights.DoChan(key, func() (result any, failed error) {
		*mine = true
		release, err := c.hold()
		if err != nil {
			return answer{err: err}, nil
		}
		defer release()
		var a answer
		// A panic here would end the program, for no handler's recovery is above it.
		defer func() {
			if p := recover(); p != nil {
				c.log.Error("panic", zap.Any("panic", p), zap.Stack("stack"))
				result, failed = answer{err: fmt.Errorf("internal error: %v", p)}, nil
			}
		}()
		a.v, a.err = work(presented.In(c.ctx))
		return a, nil
	})
	select {
	case res := <-done:
		a := res.Val.(answer)
		return a.v, *mine, a.err
	case <-ctx.Done():
		return v, false, context.Cause(ctx)
	}
}

// hold keeps Close from closing the stores until release is called.
func (c *Cache) hold() (release func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	c.work.Add(1)
	return c.work.Done, nil
}

// logged says that a record could not be written: it will be learnt again.
func (c *Cache) logged(err error) {
	if err != nil {
		c.log.Log(c.severity(err), "index", zap.Error(err))
	}
}
