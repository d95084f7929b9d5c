package cache

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// startWithin is how long an answer may take to start: clients give up after 30 s, and many of them turn to the registry itself
// only if they were refused.
const startWithin = 25 * time.Second

// errLate says that an answer could not be started in time.
var errLate = errors.New("upstream has not answered within " + startWithin.String())

// onset is the time until an answer starts.
type onset struct {
	end   context.CancelCauseFunc
	timer *time.Timer
}

// starting returns a context that ends after startWithin, unless started was called before, and when end is.
func starting(ctx context.Context) (context.Context, onset) {
	ctx, end := context.WithCancelCause(ctx)
	return ctx, onset{end, time.AfterFunc(startWithin, func() { end(errLate) })}
}

// started returns err, or, if it comes too late, that it does. Then whatever else there is of the answer is of no use.
func (s onset) started(err error) error {
	if s.timer.Stop() {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, errLate)
}

// whole is started for an answer of which nothing is to come any more.
func (s onset) whole(err *error) {
	*err = s.started(*err)
	s.end(nil)
}
