package upstream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// atOnce is how many requests wait for an answer of somebody who may not be there: as many as it takes for a few lost
	// ones not to be taken for an outage, and no more, for each may cost its time-out.
	atOnce = 8

	// lately is for how long an answer shows that somebody is there.
	lately = 2 * time.Second
)

// door is what requests to one endpoint, for one sort of traffic, pass on their way out.
//
// While it is shut nobody passes: the endpoint is gone, and a probe finds out when it is back. While the endpoint has answered
// lately, or fewer than atOnce requests wait for it, all pass. The others wait here until it answers, which lets all of them
// pass; until it falls, which fails all of them; until one that has passed ends without an answer, which lets one pass; or
// until their callers leave.
//
// No wake-up is lost and none is owed. What enter waits for is a function of shut, answered and inside, and of the time, whose
// passing alone lets nobody pass. All three change under mu only, and whatever changes them in a way that may end a wait takes
// changed and closes it before it lets go of mu. Who waits has looked at them under mu and taken that same channel before
// it let go: so either it has seen the change, or the change closes the channel that it waits for. It looks again then, and
// holds nothing meanwhile: one that leaves has nothing to give back. And while anybody waits on a door that is not shut,
// inside is atOnce or more, and each of these calls leave, however it ends: there is always somebody who will close the channel.
type door struct {
	mu sync.Mutex
	// guards following
	shut     error         // why nobody passes; nil: it is not shut
	next     time.Time     // while it is shut, when the endpoint is going to be probed
	answered time.Time     // when the endpoint last answered; zero: not since it came back
	inside   int           // requests that have passed and wait for their answer
	changed  chan struct{} // what those who wait wait for; nil: nobody does
}

// enter waits until a request may pass. It is followed by leave, unless there is an error: that of a door that is shut, or the
// cause of ctx's end.
func (d *door) enter(ctx context.Context) error {
	for {
		changed, err := d.tryEnter()
		if changed == nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// tryEnter is enter without waiting: if that is what is to be done, it returns what to wait for.
func (d *door) tryEnter() (changed <-chan struct{}, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.shut != nil:
		return nil, d.shutLocked()
	case d.inside < atOnce || time.Since(d.answered) < lately:
		d.inside++
		return nil, nil
	case d.changed == nil:
		d.changed = make(chan struct{})
	}
	return d.changed, nil
}

// leave ends a request's wait for its answer, and notes whether there was one.
func (d *door) leave(answered bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inside--
	if answered {
		d.answered = time.Now()
	}
	d.wakeLocked()
}

// wakeLocked has all who wait look again.
func (d *door) wakeLocked() {
	if d.changed != nil {
		close(d.changed)
		d.changed = nil
	}
}

// isShut returns the error that enter would have, if the door is shut.
func (d *door) isShut() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.shutLocked()
}

func (d *door) shutLocked() error {
	if d.shut == nil {
		return nil
	}
	return &shutError{cause: d.shut, next: time.Until(d.next)}
}

// shutFor shuts the door for a reason, unless somebody has had an answer since the request began that is the reason: one that
// answers others is there.
func (d *door) shutFor(cause error, since time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shut == nil && d.answered.Before(since) {
		d.shut = cause
		d.wakeLocked()
	}
}

// probedAt notes when the endpoint is going to be probed.
func (d *door) probedAt(next time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.next = next
}

// open opens the door to an endpoint that is back. How much it can bear is for the first answer to show.
func (d *door) open() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shut != nil { // and so nobody waits
		d.shut, d.answered = nil, time.Time{}
	}
}

// ErrDown says that an endpoint was not asked, because it was found not to be there, and not seen to be back yet.
var ErrDown = errors.New("upstream is down")

// ErrOffline says that nobody was asked, because that is how the registry is set.
var ErrOffline = errors.New("upstream is not to be asked: the mirror is offline")

// shutError is the error of a door that is shut.
type shutError struct {
	cause error         // why
	next  time.Duration // until the next probe
}

func (e *shutError) Error() string { return fmt.Sprintf("%v: %v", ErrDown, e.cause) }

func (e *shutError) Is(target error) bool { return target == ErrDown }

// wasAsked reports whether an error is that of a request which has been on the wire, or was to be sent there.
func wasAsked(err error) bool { return !errors.Is(err, ErrDown) && !errors.Is(err, ErrOffline) }
