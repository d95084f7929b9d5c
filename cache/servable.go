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
	missing, ok := c.missing(ctx, m)
	if !ok || r.answeredJustNow() {
		return nil
	}
	if down, probe := r.down(); down && !probe {
		return fmt.Errorf("%w: missing %s: %w", ErrUnavailable, missing, errDown)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, probePatience, errSlow)
	defer cancel()
	_, err := c.resolveDigest(ctx, r, repo, m.Descriptor.Digest)
	if err != nil && !isAnswer(err) {
		return fmt.Errorf("%w: missing %s: %w", ErrUnavailable, missing, err)
	}
	return nil
}

// maxImages is how many images of an index are looked at: more than there are platforms.
const maxImages = 64

// missing returns content that the manifest names and that is neither kept nor on its way; ok is false if there is none.
// An index is served if one of its images can be: which platform the client is going to choose is not known here, but the
// one that is cached is the likeliest.
func (c *Cache) missing(ctx context.Context, m *Manifest) (d digest.Digest, ok bool) {
	doc, err := parseDocument(m.Descriptor.MediaType, m.Body)
	if err != nil {
		return "", false
	}
	if len(doc.images) == 0 {
		return c.missingOf(doc)
	}
	seen := make(map[digest.Digest]bool)
	for _, child := range doc.images {
		if seen[child.Digest] || len(seen) == maxImages || ctx.Err() != nil {
			continue
		}
		seen[child.Digest] = true
		image, ok := c.storedManifest(child)
		if !ok {
			continue
		}
		parts, err := parseDocument(child.MediaType, image.Body)
		if err != nil {
			continue
		}
		if _, missing := c.missingOf(parts); !missing {
			return "", false
		}
	}
	return doc.images[0].Digest, true
}

func (c *Cache) missingOf(image document) (d digest.Digest, ok bool) {
	for _, desc := range image.named() {
		if !c.disk.Has(desc.Digest) && !c.fills.InFlight(desc.Digest) {
			return desc.Digest, true
		}
	}
	return "", false
}
