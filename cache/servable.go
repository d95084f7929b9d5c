package cache

import (
	"context"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
)

// probePatience is how long a manifest is held up by the question whether upstream is there at all.
const probePatience = 5 * time.Second

// servable makes sure that a manifest which is served from the cache does not promise what can't be kept: podman, CRI-O and
// their like choose between mirrors with the manifest, and have no way back when a blob fails later. If content is
// missing, upstream must be reachable; if not, the error is ErrUnavailable.
func (c *Cache) servable(ctx context.Context, r *remote, repo Repository, m *Manifest) error {
	down := r.BlobsDown() || r.Down()
	if !down && r.answeredJustNow() {
		return nil // then it does not matter whether anything is missing, and to find out takes a system call for what is
	}
	if !down {
		// The table of what is kept will do: if a file of it was deleted behind our back, upstream has it. During an outage
		// only the files count; and of what is not in the table there may be a file all the same.
		if _, ok := c.missing(ctx, m, c.keeper.Knows); !ok {
			return nil
		}
	}
	missing, ok := c.missing(ctx, m, c.here)
	if !ok {
		return nil
	}
	if down {
		return fmt.Errorf("%w: missing %s: %w", ErrUnavailable, missing, errDown)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, probePatience, errSlow)
	defer cancel()
	_, err := c.resolveDigest(ctx, r.sparingly(), repo, m.Descriptor.Digest)
	if err != nil && !isAnswer(err) && !isThrottled(err) { // a limit is over some time, and blobs wait for it
		return fmt.Errorf("%w: missing %s: %w", ErrUnavailable, missing, err)
	}
	return nil
}

// maxImages is how many images of an index are looked at: more than there are platforms.
const maxImages = 64

// missing returns content that the manifest names and that is neither kept nor on its way; ok is false if there is none.
// An index is served if one of its images can be: which platform the client is going to choose is not known here, but the
// one that is cached is the likeliest.
func (c *Cache) missing(ctx context.Context, m *Manifest, kept func(digest.Digest) bool) (d digest.Digest, ok bool) {
	images := m.names.images
	if len(images) == 0 {
		return c.missingOf(m.names, kept)
	}
	seen := make(map[digest.Digest]bool)
	for _, child := range images {
		if seen[child.Digest] || len(seen) == maxImages || ctx.Err() != nil {
			continue
		}
		seen[child.Digest] = true
		if !kept(child.Digest) {
			continue
		}
		image, ok := c.storedManifest(ctx, child)
		if !ok {
			continue
		}
		if _, missing := c.missingOf(image.names, kept); !missing {
			return "", false
		}
	}
	return images[0].Digest, true
}

func (c *Cache) missingOf(image document, kept func(digest.Digest) bool) (d digest.Digest, ok bool) {
	for _, group := range image.groups() {
		for _, desc := range group {
			if !kept(desc.Digest) && !c.fills.InFlight(desc.Digest) {
				return desc.Digest, true
			}
		}
	}
	return "", false
}
