package cache

import (
	"context"

	"github.com/entrepot/entrepot/upstream"
)

// sparingly returns r as it is asked for what can be done without, because there is a stale answer at hand: that leaves alone what
// is reserved of a rate limit, and waits for none. What becomes of it is noted as ever. It is no context of the caller's, for those
// end where a flight begins.
func (r *remote) sparingly() *remote {
	sparing := *r
	sparing.sparing = true
	return &sparing
}

// under is the context to ask r under.
func (r *remote) under(ctx context.Context) context.Context {
	if r.sparing {
		return upstream.Dispensable(ctx)
	}
	return ctx
}

// shareOf is share for what is asked of a registry sparingly by some, and by others not. Who can't do without, and has joined a
// flight that failed at a rate limit, asks once more: that flight may have waited for nothing.
func shareOf[T any](ctx context.Context, c *Cache, r *remote, key string, work func(context.Context) (T, error)) (v T, led bool, err error) {
	v, led, err = share(ctx, c, key, work)
	if !led && isThrottled(err) && !r.sparing {
		return share(ctx, c, key, work)
	}
	return v, led, err
}
