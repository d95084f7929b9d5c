package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// startWithin is how long an answer may take to start: clients give up after 30 s, and many of them turn to the registry itself
// only if they were refused.
const startWithin = 25 * time.Second

// errLate says that an answer could not be started in time.
var errLate = errors.New("upstream has not answered within " + startWithin.String())

// onset is a caller's context until an answer starts, which ends after startWithin. It costs next to nothing until somebody waits:
// most answers are at hand.
type onset struct {
	context.Context
	began time.Time

	mu sync.Mutex
	// guards following
	armed context.Context // what this one is once somebody has waited; nil before
	end   context.CancelCauseFunc
	timer *time.Timer // nil if there is none any more
	over  bool        // the answer has started
}

type waitingSince struct{}

// WaitingSince returns a context for who has waited for an answer since then already.
func WaitingSince(ctx context.Context, began time.Time) context.Context {
	return context.WithValue(ctx, waitingSince{}, began)
}

// starting returns a context that ends after startWithin, unless started was called before, and at the latest with whole.
func starting(ctx context.Context) (context.Context, *onset) {
	o := &onset{Context: ctx, began: time.Now()}
	if earlier, ok := ctx.Value(waitingSince{}).(time.Time); ok {
		o.began = earlier
	}
	return o, o
}

// Done is asked for by who is going to wait.
func (o *onset) Done() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.armed == nil {
		ctx, end := context.WithCancelCause(o.Context)
		o.armed, o.end = ctx, end
		if !o.over {
			o.timer = time.AfterFunc(startWithin-time.Since(o.began), func() { end(errLate) })
		}
	}
	return o.armed.Done()
}

func (o *onset) now() context.Context {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.armed == nil {
		return o.Context
	}
	return o.armed
}

// Err is why it has ended.
func (o *onset) Err() error { return o.now().Err() }

// Value is that of the caller's context, but for what package context keeps there of its own.
func (o *onset) Value(key any) any { return o.now().Value(key) }

// started returns err, or, if it comes too late, that it does. Then whatever else there is of the answer is of no use.
func (o *onset) started(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.over = true
	if o.timer == nil || o.timer.Stop() {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, errLate)
}

// free ends the context.
func (o *onset) free() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.end != nil {
		o.end(nil)
	}
}

// whole is started for an answer of which nothing is to come any more.
func (o *onset) whole(err *error) {
	*err = o.started(*err)
	o.free()
}
