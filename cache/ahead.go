package cache

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/entrepot/entrepot/cache/fill"
	"github.com/entrepot/entrepot/upstream"
)

// ReadAhead is how much is asked of upstream before a client asks for it. Each value includes those before it, and all but
// the first that the first HEAD of a tag is a GET upstream, which serves the client's own GET as well.
type ReadAhead int

const (
	ReadNothing   ReadAhead = iota
	ReadManifests           // the manifests of an index, for the platforms that clients are likely to be of
	ReadConfig              // the configuration of an image
	ReadLayers              // its layers
)

const (
	// aheadAtOnce is how many manifests of a registry are followed at once: the images that a node begins to pull when it
	// starts. What comes while there are as many is not read ahead; its client asks for it soon enough.
	aheadAtOnce = 16

	// layersAtOnce is how many layers of an image are read ahead at once: clients begin with three, so that the next three are
	// on their way when these are here. imagesAtOnce is for how many images that is done: the twelve in all leave room among the
	// transfers that may go on without a reader, which are sixteen.
	layersAtOnce = 6
	imagesAtOnce = 2

	// maxLayers is how many layers of an image are read ahead: as many as container engines can stack.
	maxLayers = 128

	// maxConfig is the largest configuration that is read ahead, in bytes. Those of images have some kilobytes; what is
	// larger belongs to an artifact that keeps its content there, and is a layer in all but name.
	maxConfig = 1 << 20

	// aheadRest is how long nothing is read ahead of a registry at which that failed, or of any if it could not be kept: limits
	// count requests over hours, disks are full for as long, and all there is to gain is a round trip.
	aheadRest = time.Minute
)

// ahead asks upstream for what clients are going to ask for next, so that a client far from the registry waits for fewer
// round trips.
//
// The life of what is read ahead:
//
//   - A manifest that came from upstream is new until a client gets it, or it was itself read ahead; then, and only then, what
//     it names is read ahead. So who asks by HEAD alone causes nothing more, and neither does what was kept before.
//   - All goes by the same flights and fills as requests of clients do: who asks meanwhile joins, and the proof that the
//     content belongs to the repository is the same.
//   - Nobody waits for it but who has joined, and nobody else learns of its failures. When there is enough under way, or the
//     registry is in trouble, it is left out and not put off.
//   - A blob is a fill that no reader follows, in the background class until a client joins. Where such are parked
//     (Options.ParkAbandoned) it keeps a reader, or it would stop at its first byte: then it is as urgent as a client's. So does a
//     small blob, which is not worth holding back.
type ahead struct {
	c       *Cache
	mode    ReadAhead
	remotes map[string]*remote // as read-ahead asks them, by registry

	mu sync.Mutex
	// guards following
	clues   clues
	recent  recent
	running map[string]int               // manifests that are followed, by registry
	images  int                          // whose layers are read
	unkept  time.Time                    // when something could last not be kept
	fills   map[digest.Digest]chan error // that are read ahead, and how they ended
}

func newAhead(c *Cache, mode ReadAhead) *ahead {
	a := &ahead{c: c, mode: mode, remotes: make(map[string]*remote), running: make(map[string]int),
		fills: make(map[digest.Digest]chan error)}
	for name, r := range c.remotes {
		a.remotes[name] = &remote{Upstream: unasked{r}, name: name, c: c, ahead: true, sparing: true, conduct: new(conduct)}
	}
	return a
}

// unasked is a registry as it is asked for what no client needs yet. That it answers is good to know for all; that it
// fails only for who reads ahead: clients may ask it for something that it gives.
type unasked struct{ *remote }

func (u unasked) Manifest(ctx context.Context, repository, reference string, accept []string) (ocispec.Descriptor, []byte, error) {
	desc, body, err := u.Upstream.Manifest(ctx, repository, reference, accept)
	u.noteAnswer(err)
	return desc, body, err
}

func (u unasked) OpenBlob(ctx context.Context, req upstream.BlobRequest) (*upstream.BlobStream, error) {
	blob, err := u.Upstream.OpenBlob(ctx, req)
	u.noteAnswer(err)
	return blob, err
}

// willing returns a registry to read ahead of; ok is false if that is not wanted, or not now.
func (a *ahead) willing(registry string) (r *remote, ok bool) {
	if a.mode == ReadNothing {
		return nil, false
	}
	r = a.remotes[registry]
	a.mu.Lock()
	kept := a.unkept.IsZero() || r.now().Sub(a.unkept) >= aheadRest
	a.mu.Unlock()
	return r, kept && !r.Down() && !a.c.remotes[registry].failing() && !r.failedWithin(aheadRest)
}

// came is told of each manifest that came from upstream.
func (a *ahead) came(repo Repository, m *Manifest, doc document) {
	if a.mode == ReadNothing {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, child := range doc.images[:min(len(doc.images), maxImages)] {
		at := clueKey{repo, child.Digest}
		a.clues.put(at, clue{platform: platformOf(child.Platform), isNew: a.clues.take(at).isNew})
	}
	at := clueKey{repo, m.Descriptor.Digest}
	a.clues.put(at, clue{platform: a.clues.take(at).platform, isNew: true})
	if !m.Verdict.Stored {
		a.unkept = a.c.opts.Now()
	}
}

// asked is told of each manifest that a client got by GET. It learns from that, and follows a new one.
func (a *ahead) asked(ctx context.Context, repo Repository, m *Manifest) {
	if a.mode == ReadNothing {
		return
	}
	a.mu.Lock()
	c := a.clues.take(clueKey{repo, m.Descriptor.Digest})
	a.recent.add(c.platform)
	a.mu.Unlock()
	if !c.isNew {
		return
	}
	if _, ok := a.willing(repo.Registry); ok {
		a.start(upstream.PresentedIn(ctx), repo, m)
	}
}

// claim reports whether a manifest is new, which it is for one caller.
func (a *ahead) claim(repo Repository, d digest.Digest) (isNew bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := clueKey{repo, d}
	c := a.clues.take(at)
	a.clues.put(at, clue{platform: c.platform})
	return c.isNew
}

// start follows a manifest on a goroutine of its own, which Close waits for, if there is room for one more: with what the client
// has presented that got it.
func (a *ahead) start(as upstream.Presented, repo Repository, m *Manifest) {
	release, err := a.c.hold()
	if err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.running[repo.Registry] >= aheadAtOnce {
		release()
		return
	}
	a.running[repo.Registry]++
	go func() {
		defer release()
		a.follow(as.In(a.c.ctx), repo, m)
		a.mu.Lock()
		defer a.mu.Unlock()
		a.running[repo.Registry]--
	}()
}

// follow reads ahead what a manifest names: of an index some images and what these name in turn. What an index within an
// index names is left alone, for that might go on for ever.
func (a *ahead) follow(ctx context.Context, repo Repository, m *Manifest) {
	doc := m.names
	a.mu.Lock()
	likely := a.recent.among(doc.images, ofMachine(runtime.GOOS, runtime.GOARCH))
	a.mu.Unlock()
	var work sync.WaitGroup
	defer work.Wait()
	for _, child := range likely {
		work.Go(func() {
			if image, ok := a.manifest(ctx, repo, child); ok {
				a.parts(ctx, repo, image)
			}
		})
	}
	a.parts(ctx, repo, doc)
}

// manifest reads a manifest ahead; ok is false if that failed, or somebody else follows it.
func (a *ahead) manifest(ctx context.Context, repo Repository, desc ocispec.Descriptor) (doc document, ok bool) {
	r, ok := a.willing(repo.Registry)
	if !ok || a.c.here(desc.Digest) {
		return document{}, false
	}
	m, led, err := a.c.fetchManifest(ctx, r, repo, desc.Digest.String())
	if led && (err != nil || m.Verdict.Outcome != Hit) { // else it was kept
		a.count(repo, "manifest", err == nil && m.Verdict.Stored)
	}
	if err != nil {
		a.c.log.Debug("manifest not read ahead", zap.Stringer("repository", repo), zap.Stringer("digest", desc.Digest), zap.Error(err))
		return document{}, false
	}
	if !a.claim(repo, desc.Digest) {
		return document{}, false // a client that joined was faster
	}
	return m.names, true
}

// parts reads ahead what an image is made of, as far as that is wanted: the layers beside the configuration.
func (a *ahead) parts(ctx context.Context, repo Repository, image document) {
	var work sync.WaitGroup
	defer work.Wait()
	for _, config := range image.config {
		if a.mode >= ReadConfig && config.Size <= maxConfig {
			work.Go(func() { a.blob(ctx, repo, config) })
		}
	}
	if a.mode >= ReadLayers {
		a.layers(ctx, repo, image.layers)
	}
}

// layers reads layers ahead, in their order, unless those of enough images are being read.
func (a *ahead) layers(ctx context.Context, repo Repository, layers []ocispec.Descriptor) {
	a.mu.Lock()
	full := a.images >= imagesAtOnce
	if !full {
		a.images++
	}
	a.mu.Unlock()
	if full {
		return
	}
	var work errgroup.Group
	work.SetLimit(layersAtOnce)
	for _, layer := range layers[:min(len(layers), maxLayers)] {
		work.Go(func() error {
			a.blob(ctx, repo, layer)
			return nil
		})
	}
	_ = work.Wait() // none has an error
	a.mu.Lock()
	defer a.mu.Unlock()
	a.images--
}

// blob reads a blob ahead, and returns when its transfer has ended.
//
// Manifests may lie about sizes. No more is fetched than this one says, or than is small; if there turns out to be more, it
// is left as if a client had asked for a part of it and gone: what has landed is parked.
func (a *ahead) blob(ctx context.Context, repo Repository, desc ocispec.Descriptor) {
	d := desc.Digest
	r, ok := a.willing(repo.Registry)
	if !ok || a.c.keeper.Has(d) || a.c.fills.InFlight(d) || !a.c.keeper.Fits(desc.Size) || ctx.Err() != nil {
		return
	}
	ended, ok := a.expect(d)
	if !ok {
		return
	}
	defer a.forget(d)
	began, src := r.now(), source{a.c, r, repo, d, upstream.PresentedIn(ctx)}
	part := Part{To: max(desc.Size, maxConfig)}
	reader, joined, err := a.c.fills.Join(ctx, d, desc.Size, src, part)
	if err == nil {
		size := reader.Size()
		if follows := size <= part.To && (a.c.opts.ParkAbandoned || size <= maxConfig); follows {
			defer reader.Close() // which has no error
		} else {
			err = reader.Close()
		}
		_ = r.note(began, err)
	}
	// Whatever Join has come to, there was a fill whose end is told, or the cache is being closed.
	err = a.await(ctx, d, ended)
	if reader != nil {
		began = r.now() // it has been asked for again since, before it was given up
	}
	a.failed(r, began, err)
	if !joined && !errors.Is(err, fill.ErrKept) {
		a.count(repo, "blob", a.c.keeper.Has(d))
	}
}

// failed takes down why the reading of a blob failed, if it did.
func (a *ahead) failed(r *remote, began time.Time, err error) {
	if errors.Is(err, fill.ErrStorage) {
		a.mu.Lock()
		a.unkept = r.now()
		a.mu.Unlock()
	}
	if err != nil {
		_ = r.note(began, err)
	}
}

func (a *ahead) count(repo Repository, kind string, kept bool) {
	if a.c.opts.AheadDone != nil {
		a.c.opts.AheadDone(repo.Registry, kind, kept)
	}
}

// expect makes it known that a blob is going to be read ahead, and returns a channel that gets the error, or nil, with which a
// fill of it ends; ok is false if somebody else does that. It is followed by forget.
func (a *ahead) expect(d digest.Digest) (ended <-chan error, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fills[d] != nil {
		return nil, false
	}
	end := make(chan error, 1)
	a.fills[d] = end
	return end, true
}

// forget ends what expect began, for its caller only: nobody else is let in before.
func (a *ahead) forget(d digest.Digest) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.fills, d)
}

// await returns the error with which the fill of a blob ended that was expected and joined, or that with which ctx did.
//
// The end that is told may be another's: that of a fill which was out of flight already when the blob was looked for, for fills
// are when their end is told. As long as the one that was joined is in flight, it is waited for. Its end can't be missed: of two
// that nobody has taken the later stays. And if it is out of flight too, all is over, though what is returned is the other's.
func (a *ahead) await(ctx context.Context, d digest.Digest, ended <-chan error) error {
	for {
		select {
		case err := <-ended:
			if !a.c.fills.InFlight(d) {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// ended is told of each fill that ended, and reports whether one of its readers was no client.
func (a *ahead) ended(d digest.Digest, err error) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	end, ok := a.fills[d]
	if !ok {
		return false
	}
	select {
	case <-end: // of an earlier fill
	default:
	}
	end <- err // does not wait: only under the lock is anything put there
	return true
}
