package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/entrepot/entrepot/upstream/credential"
)

// authorized asks q of a repository at an endpoint, as whom q is to be asked. A 429 is the answer only when nobody else can be
// asked as, and when q has not the patience to wait.
func (r *Registry) authorized(ctx context.Context, e *endpoint, q question, repository string, to *url.URL) (*http.Response, error) {
	accounts := e.accounts(q.as)
	var refusal *Error // the latest 429
	waited := false
	for {
		got, err := r.admit(ctx, e, accounts, q, &waited)
		if vain, ok := errors.AsType[*Error](err); ok && refusal != nil {
			told := *refusal // everybody's, if it is a token server's; its own words tell the client more
			told.RetryAfter = max(refusal.RetryAfter, vain.RetryAfter)
			return nil, &told
		}
		if err != nil {
			return nil, err
		}
		resp, err := r.authorizedAs(ctx, got.account, q, repository, to)
		if !r.settle(e, got, resp, err) {
			return resp, err
		}
		if err != nil {
			refusal = r.failed(q, err)
		} else {
			refusal = r.refusal(q, resp, e.origin)
		}
	}
}

// authorizedAs asks q with what the endpoint is known to want. A 401 is looked at once: its challenge may be news, the token
// may have ended early, or the password may have been replaced. Only the endpoint's own 401 counts; that of a host that a
// redirect led to could name any realm.
func (r *Registry) authorizedAs(ctx context.Context, a *account, q question, repository string, to *url.URL) (*http.Response, error) {
	e := a.endpoint
	if q.as.presented != "" && e.first {
		return r.ask(ctx, e, q, to, q.as.presented) // its 401 is the answer: another token is for the client to fetch
	}
	sent, err := r.authorization(ctx, a, repository, e.challenge())
	if err != nil {
		return nil, err
	}
	resp, err := r.ask(ctx, e, q, to, sent.header)
	if err != nil || resp.StatusCode != http.StatusUnauthorized || originOf(resp.Request.URL) != e.origin {
		return resp, err
	}
	wanted := choose(resp.Header.Values("WWW-Authenticate"))
	if wanted == (challenge{}) {
		return resp, nil
	}
	e.learn(wanted)
	r.tokens.drop(tokenKey{a, repository}, sent.header)
	if sent.password != (credential.Login{}) {
		a.source.Refused(sent.password)
	}
	renewed, err := r.authorization(ctx, a, repository, wanted)
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	if renewed.header == sent.header { // nothing else to offer: the 401 is the answer
		return resp, nil
	}
	discard(resp)
	e.quotas.charge(a, q.traffic())
	return r.ask(ctx, e, q, to, renewed.header)
}

// ask is follow on behalf of an endpoint, by its door; how it fares shows in what becomes of that.
func (r *Registry) ask(ctx context.Context, e *endpoint, q question, to *url.URL, authorization string) (resp *http.Response, err error) {
	door := &e.health[q.traffic()].door
	if q.kind != kindProbe {
		if err := door.enter(ctx); err != nil {
			return nil, err
		}
		// After what was heard has shut the door, if it has: else one who waits would take the place.
		defer func() { door.leave(isAnswer(resp, err)) }()
	}
	since := time.Now()
	resp, err = r.follow(ctx, e, q, to, authorization)
	r.hear(ctx, e, q, since, resp, err)
	return resp, err
}

// authorization is what meets an endpoint's challenge.
type authorization struct {
	header   string           // "": there is none to meet, or nobody to be
	password credential.Login // that the header carries itself; zero: it carries a token, or nothing
}

func (r *Registry) authorization(ctx context.Context, a *account, repository string, c challenge) (authorization, error) {
	switch c.scheme {
	case bearer:
		t, err := r.token(ctx, a, repository, c)
		return authorization{header: t.header()}, err
	case basic:
		who, err := r.login(ctx, a)
		return authorization{basicHeader(who), who}, err
	}
	return authorization{}, nil
}

// realm returns the token server that an endpoint names, if it may be asked by this user. Anyone on the way of a plain
// http challenge can name a realm, with a certificate or without, and wait for passwords there: a password goes to the
// endpoint's own origin, from one https origin to another, or to whom the operator has named.
func (r *Registry) realm(e *endpoint, c challenge, who credential.Login) (*url.URL, error) {
	u, err := url.Parse(c.realm)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return nil, fmt.Errorf("%s names a token realm that is no plain http or https URL", e.url.Host)
	}
	named := r.realms[strings.ToLower(u.Host)] || r.realms[strings.ToLower(u.Hostname())]
	switch {
	case originOf(u) == e.origin || named:
	case u.Scheme == "https" && (e.url.Scheme == "https" || who == credential.Login{}):
	case u.Scheme == "https":
		return nil, fmt.Errorf("%s, which is not encrypted, asks for the credentials to be sent to %s: list it in token_realms to allow this",
			e.url.Host, printable(u.Host, maxMessage))
	case who != credential.Login{}:
		return nil, fmt.Errorf("%s asks for the credentials to be sent to %s, which is not encrypted: list it in token_realms to allow this",
			e.url.Host, printable(u.Host, maxMessage))
	case e.url.Scheme != "http" && !strings.EqualFold(u.Hostname(), e.url.Hostname()):
		return nil, fmt.Errorf("%s asks for a token from %s, which is not encrypted: list it in token_realms to allow this",
			e.url.Host, printable(u.Host, maxMessage))
	}
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}
