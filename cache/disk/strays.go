package disk

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
)

// Strays lists under which digests there is something else than a file, such as a directory: no content, and in its way.
func (s *Store) Strays(ctx context.Context) (all []digest.Digest, err error) {
	dirs, err := s.contentDirs()
	for _, dir := range dirs {
		if ctx.Err() != nil {
			return all, context.Cause(ctx)
		}
		entries, listErr := s.readDir(dir)
		if listErr != nil {
			err = errors.Join(err, fmt.Errorf("list %s: %w", dir, listErr))
		}
		for _, e := range entries {
			d := digest.NewDigestFromEncoded(algorithmOf(dir), e.Name())
			if !e.Type().IsRegular() && validate(d) == nil && blobDir(d) == dir {
				all = append(all, d)
			}
		}
	}
	return all, err
}
