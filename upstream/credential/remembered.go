package credential

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	// lookTimeout bounds one look: helpers that ask a cloud take seconds, one that waits for a human never ends.
	lookTimeout = 30 * time.Second

	// unstatedLife is when a login is looked for again whose life is not known. Programs that hand out short-lived ones
	// keep and renew them themselves, and count on being asked.
	unstatedLife = 10 * time.Minute

	// grace is how long a login is used whose file holds none any more: that file may be just being written.
	grace = time.Minute

	// firstPause and lastPause bound the pauses after looks that failed, or that a refusal has caused. They double, from the
	// start again when there was no such look for calm.
	firstPause = time.Second
	lastPause  = time.Minute
	calm       = 5 * time.Minute
)

var (
	errSlow   = errors.New("no answer within " + lookTimeout.String())
	errClosed = errors.New("the source of credentials is closed")
)

// place is where a login is looked for.
type place interface {
	// version differs from that of the last look if the place has changed. It is cheap.
	version() int

	// look finds the login. It returns soon when ctx ends.
	look(ctx context.Context) (found, error)
}

// gone is the error of a look that has found out that the place holds no login any more.
type gone struct{ error }

func (g gone) Unwrap() error { return g.error }

// found is what a look has brought.
type found struct {
	login   Login
	renewAt time.Time // when to look again; zero: no time for that
	endAt   time.Time // when it is of no use any more; zero: that is not known
}

// lasting returns a login that was made after since, and lives that long; 0: nobody knows.
func lasting(l Login, since time.Time, life time.Duration) found {
	if life <= 0 {
		return found{login: l, renewAt: since.Add(unstatedLife)}
	}
	// It should not end on its way to the registry.
	return found{login: l, renewAt: since.Add(life * 5 / 6), endAt: since.Add(life - min(life/20, 10*time.Second))}
}

// remembered is the login of a place.
type remembered struct {
	place place

	// Looks serve many callers, so they live as long as the source and not as long as any of these.
	life context.Context
	end  context.CancelFunc
	work sync.WaitGroup

	mu sync.Mutex
	// guards following
	log       *zap.Logger
	closed    bool
	has       bool // whether there is a login
	have      found
	suspect   bool          // it was refused, and nobody has looked since
	version   int           // of the place, at the last look
	err       error         // of the last look
	under     chan struct{} // closed at the end of the look that is under way; nil: none is
	notBefore time.Time     // of the next look, unless the place changes
	pause     time.Duration // before that
	trouble   time.Time     // the last look that failed or that a refusal caused
}

func remember(p place) *remembered {
	r := &remembered{place: p, log: zap.NewNop()}
	r.life, r.end = context.WithCancel(context.Background())
	return r
}

// LogTo says where to tell of looks that fail.
func (r *remembered) LogTo(log *zap.Logger) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = log
}

// Close ends the look under way, and waits for it.
func (r *remembered) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.end()
	r.work.Wait()
	return nil
}

// Refused has the next Get look again, if l is what is remembered.
func (r *remembered) Refused(l Login) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.suspect = r.suspect || r.has && l == r.have.login
}

// Get returns the login.
//
// It asks for the state of things again after each wait: the look that it waited for may have begun before the change, or
// the refusal, that this call is to see the consequences of. It gets to an end, because a look that fails is not
// repeated at once, and one that does not brings what lasts for a while.
func (r *remembered) Get(ctx context.Context) (Login, error) {
	refused, isRefused := ctx.Value(instead{}).(Login)
	for {
		login, wait, err := r.state(r.place.version(), func() bool { return isRefused && r.has && refused == r.have.login })
		if wait == nil {
			return login, err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return Login{}, context.Cause(ctx)
		}
	}
}

// state returns the login, or what to wait for, and starts a look if one is due. Useless tells, under the mutex, whether the login that
// there is is of no use to the caller.
func (r *remembered) state(version int, useless func() bool) (Login, <-chan struct{}, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	good := r.has && (r.have.endAt.IsZero() || now.Before(r.have.endAt))
	changed := version != r.version
	urgent := !good || changed || useless()
	due := !good || changed || r.suspect || !r.have.renewAt.IsZero() && !now.Before(r.have.renewAt)
	if due && r.under == nil && !r.closed && (changed || !now.Before(r.notBefore)) {
		r.beginLocked(version)
	}
	switch {
	case urgent && r.under != nil:
		return Login{}, r.under, nil
	case good: // a look under way is for those who come later
		return r.have.login, nil, nil
	case r.closed:
		return Login{}, nil, errClosed
	default:
		return Login{}, nil, r.err
	}
}

// beginLocked starts a look. What is refused from now on is not what this look is about.
func (r *remembered) beginLocked(version int) {
	suspected := r.suspect
	r.suspect = false
	r.under = make(chan struct{})
	r.work.Go(func() {
		ctx, cancel := context.WithTimeoutCause(r.life, lookTimeout, errSlow)
		defer cancel()
		f, err := r.place.look(ctx)
		if err == nil && !f.endAt.IsZero() && time.Until(f.endAt) < time.Second {
			err = errors.New("the login that was found has ended already")
		}
		r.land(version, suspected, f, err)
	})
}

// land notes the end of a look.
func (r *remembered) land(version int, suspected bool, f found, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	_, isGone := errors.AsType[gone](err)
	failedBefore := r.err != nil
	r.version, r.err = version, err
	if err != nil || suspected {
		if now.Sub(r.trouble) >= calm {
			r.pause = 0
		}
		r.pause = min(max(2*r.pause, firstPause), lastPause)
		r.trouble, r.notBefore = now, now.Add(r.pause)
	}
	switch {
	case err == nil:
		// Who was refused meanwhile was the old one, if the new one is another.
		r.suspect = r.suspect && f.login == r.have.login
		r.has, r.have = true, f
	case isGone && r.has:
		if last := now.Add(grace); r.have.endAt.IsZero() || last.Before(r.have.endAt) {
			r.have.endAt = last
		}
	}
	r.tellLocked(now, failedBefore, err)
	close(r.under)
	r.under = nil
}

// tellLocked writes about the end of a look what no caller will hear of. Looks that fail are far between.
func (r *remembered) tellLocked(now time.Time, failedBefore bool, err error) {
	switch {
	case err == nil && failedBefore:
		r.log.Info("credentials can be read again", zap.Object("login", r.have.login))
	case err == nil, r.closed:
	case r.has && r.have.endAt.IsZero():
		r.log.Warn("credentials can't be renewed: the old ones are used on", zap.Error(err))
	case r.has && now.Before(r.have.endAt):
		r.log.Warn("credentials can't be renewed: the old ones are used on for a while", zap.Error(err),
			zap.Duration("for", r.have.endAt.Sub(now)))
	}
}
