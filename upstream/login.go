package upstream

import (
	"context"
	"errors"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/entrepot/entrepot/upstream/credential"
)

// tellAgain is how often the log is told of trouble with a login that goes on.
const tellAgain = time.Minute

// attempt is a login on its way to a registry. It is followed by accepted, refused or unheard.
type attempt struct {
	who   credential.Login
	began time.Time
	trial int // of the hold on the login; 0: it is not held
}

// trouble is what there is with the login of an account. A login that is refused is held, as what is throttled is: it is not sent again
// but by one request at growing pauses, so that a wrong password locks nobody out. Another one that the source gives is sent at
// once. The zero value is none.
type trouble struct {
	login         credential.Login // the one that is refused; zero: none is
	hold          hold
	code, message string // of upstream, in the latest refusal

	unread            bool // there is no login to be had
	refusals, unreads alarm
}

// is reports whether the account is to be asked as after all others.
func (x *trouble) is() bool { return x.unread || x.login != (credential.Login{}) }

// alarm is when the log was told last of what goes on.
type alarm struct {
	on   bool
	told time.Time
}

// due reports whether the log is to be told that something goes on.
func (a *alarm) due(now time.Time) bool {
	if !a.told.IsZero() && now.Sub(a.told) < tellAgain {
		return false
	}
	a.on, a.told = true, now
	return true
}

// over reports whether the log, having been told, is to be told that it is over.
func (a *alarm) over() bool {
	was := a.on
	a.on = false
	return was
}

// loginless reports whether an error is about our own login, and so says nothing about what was asked.
func loginless(err error) bool { return errors.Is(err, errRefused) || errors.Is(err, errCredentials) }

// login returns who an account is, for a question. Why that can't be told is for the log alone. That it is held is an *Error.
func (r *Registry) login(ctx context.Context, a *account, op string) (attempt, error) {
	if a.source == nil {
		return attempt{}, nil
	}
	qs := &a.endpoint.quotas
	who, err := a.source.Get(ctx)
	if err == nil {
		qs.mu.Lock()
		refused := who != (credential.Login{}) && who == a.trouble.login
		qs.mu.Unlock()
		if refused { // by now another may be had, or is being looked for
			who, err = a.source.Get(credential.Instead(ctx, who))
		}
	}
	if err != nil && ctx.Err() != nil {
		return attempt{}, err
	}
	if err != nil {
		qs.mu.Lock()
		a.trouble.unread = true
		tell := !a.gone && a.trouble.unreads.due(time.Now()) // else it is closed, and the next turn has others
		qs.mu.Unlock()
		if tell {
			r.log.Error("credentials can't be read", zap.String("registry", r.name), zap.Error(err))
		}
		return attempt{}, errCredentials
	}
	a.called(who)

	qs.mu.Lock()
	a.trouble.unread = false
	readable := a.trouble.unreads.over()
	t, err := r.attemptLocked(a, who, op)
	qs.mu.Unlock()
	if readable {
		r.log.Info("credentials can be read", zap.String("registry", r.name), zap.Object("login", who))
	}
	return t, err
}

// attemptLocked lets a login pass, unless it is held.
func (r *Registry) attemptLocked(a *account, who credential.Login, op string) (attempt, error) {
	now, x := time.Now(), &a.trouble
	if who == (credential.Login{}) || who != x.login {
		x.login, x.hold = credential.Login{}, hold{}
		return attempt{who: who, began: now}, nil
	}
	if _, ok := x.hold.look(now); !ok {
		return attempt{}, r.refusedLocked(a, now, op)
	}
	return attempt{who, now, x.hold.take()}, nil
}

// refusedLocked is the error of a question that can't be asked, or is not answered, because the login of an account is refused.
func (r *Registry) refusedLocked(a *account, now time.Time, op string) *Error {
	x := &a.trouble
	wait, _ := x.hold.look(now)
	return &Error{Registry: r.name, Op: op, Status: http.StatusUnauthorized, Code: x.code, Message: x.message,
		RetryAfter: max(wait, time.Second), Err: errRefused, hearsay: true}
}

// refused notes that a login was refused, and returns the error that this is.
func (r *Registry) refused(a *account, t attempt, why *Error) *Error {
	a.source.Refused(t.who)
	now, qs, x := time.Now(), &a.endpoint.quotas, &a.trouble
	qs.mu.Lock()
	if x.login != t.who {
		x.login, x.hold = t.who, hold{}
	}
	x.hold.end(t.trial)
	x.hold.shut(now, t.began, t.trial, 0)
	x.code, x.message = why.Code, why.Message
	failure := r.refusedLocked(a, now, why.Op)
	tell := !a.gone && x.refusals.due(now)
	qs.mu.Unlock()
	if tell {
		r.log.Error("credentials are refused", zap.String("registry", r.name), zap.String("endpoint", a.endpoint.name),
			zap.Object("login", t.who), zap.Error(failure))
	}
	return failure
}

// judged notes what a 401 says of a login by the status that it has where nothing else is asked for, and returns the error that the 401
// is then. No answer there leaves open what was meant.
func (r *Registry) judged(a *account, t attempt, why *Error, status int) *Error {
	switch {
	case status == http.StatusOK:
		r.accepted(a, t)
	case status == 0, status == http.StatusTooManyRequests, status >= http.StatusInternalServerError:
		r.unheard(a, t)
		why.hearsay = true
	default:
		return r.refused(a, t, why)
	}
	return why
}

// accepted notes that a login was not refused.
func (r *Registry) accepted(a *account, t attempt) {
	qs, x := &a.endpoint.quotas, &a.trouble
	qs.mu.Lock()
	if x.login == t.who {
		x.hold.end(t.trial)
		if x.hold.open(t.began, t.trial); x.hold.streak == 0 {
			x.login = credential.Login{}
		}
	}
	over := x.login == (credential.Login{}) && x.refusals.over()
	qs.mu.Unlock()
	if over {
		r.log.Info("credentials are accepted", zap.String("registry", r.name), zap.String("endpoint", a.endpoint.name),
			zap.Object("login", t.who))
	}
}

// wasRefused reports whether a login is known to be refused.
func (r *Registry) wasRefused(a *account, t attempt) bool {
	qs, x := &a.endpoint.quotas, &a.trouble
	qs.mu.Lock()
	defer qs.mu.Unlock()
	return x.login == t.who
}

// unheard notes that an attempt has not shown whether the login is refused.
func (r *Registry) unheard(a *account, t attempt) {
	qs, x := &a.endpoint.quotas, &a.trouble
	qs.mu.Lock()
	defer qs.mu.Unlock()
	if x.login == t.who {
		x.hold.end(t.trial)
	}
}

// another reports whether the source of an account gives another login than one that was refused.
func (r *Registry) another(ctx context.Context, a *account, t attempt) bool {
	who, err := a.source.Get(credential.Instead(ctx, t.who))
	return err == nil && who != t.who
}
