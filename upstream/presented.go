package upstream

import (
	"context"
	"hash"
	"io"
)

// Presented is an Authorization header that a client has presented. However it is printed, the header is not. The zero value is
// none.
type Presented struct{ header *string } // behind a pointer, for what prints the fields of values

type presentedKey struct{}

// WithAuthorization returns a context under which a registry's first endpoint is asked with the header that a client has
// presented, in place of a login of ours; all other endpoints are asked as nobody. An empty header is none.
func WithAuthorization(ctx context.Context, header string) context.Context {
	if header == "" {
		return ctx
	}
	return Presented{&header}.In(ctx)
}

// PresentedIn returns what a context carries, for work that outlives it.
func PresentedIn(ctx context.Context) Presented {
	p, _ := ctx.Value(presentedKey{}).(Presented)
	return p
}

// In returns a context that carries p.
func (p Presented) In(ctx context.Context) context.Context {
	if p.header == nil {
		return ctx
	}
	return context.WithValue(ctx, presentedKey{}, p)
}

// Sum is what the header comes to by a hash, which should be keyed; nil: there is none.
func (p Presented) Sum(h hash.Hash) []byte {
	if p.header == nil {
		return nil
	}
	_, _ = io.WriteString(h, *p.header) // never fails
	return h.Sum(nil)
}

// String tells whether there is a header.
func (p Presented) String() string {
	if p.header == nil {
		return "none"
	}
	return "[hidden]"
}

// GoString is String, so that %#v hides the header too.
func (p Presented) GoString() string { return p.String() }

// under is whom a question is asked as under a context, unless it says itself as whom.
func (as identity) under(ctx context.Context) identity {
	if p := PresentedIn(ctx); p.header != nil && as == own {
		return presented(*p.header)
	}
	return as
}
