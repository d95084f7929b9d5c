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

// authorized asks q of a repository at an endpoint, as whom q is to be asked: as one of the logins after the other until one is not
// refused, since another may see what this one may not, or may be good where this one's password is not. If none is left the weightiest
// refusal is the answer. Which logins there are is asked again in each turn, so that who was refused while they were replaced
// is asked as the new ones. A 429 is the answer only when nobody else can be asked as, and when q has not the patience to wait.
func (r *Registry) authorized(ctx context.Context, e *endpoint, q question, repository string, to *url.URL) (*http.Response, error) {
	var tried []*account
	var refusal, limit *Error // the weightiest of the tried; the latest 429
	waited, client := false, q.as.presented != "" && e.first
	accounts := e.accounts(q.as)
	for {
		if !client { // what is known of a client's limits is with its account, which is made for this question
			accounts = without(e.accounts(q.as), tried)
		}
		if len(accounts) == 0 {
			return nil, refusal
		}
		got, err := r.admit(ctx, e, accounts, q, &waited)
		if vain, ok := errors.AsType[*Error](err); ok && limit != nil {
			told := *limit // everybody's, if it is a token server's; its own words tell the client more
			told.RetryAfter = max(limit.RetryAfter, vain.RetryAfter)
			return nil, &told
		}
		if err != nil {
			return nil, err
		}
		resp, err := r.authorizedAs(ctx, got.account, q, repository, to)
		throttled := r.settle(e, got, resp, err)
		if !throttled && (client || ctx.Err() != nil || !isRefusal(e, resp, err)) {
			return resp, err
		}
		var failure *Error
		if err != nil {
			failure = r.failed(q, err)
		} else {
			failure = r.refusal(q, resp, e.origin)
		}
		if throttled {
			limit = failure
			continue
		}
		tried = append(tried, got.account)
		if refusal == nil || weight(e, failure) > weight(e, refusal) {
			refusal = failure
		}
	}
}

// isRefusal reports whether what became of a question may be another for another login.
func isRefusal(e *endpoint, resp *http.Response, err error) bool {
	if err == nil {
		return denies(resp.StatusCode) && originOf(resp.Request.URL) == e.origin
	}
	known, ok := errors.AsType[*Error](err)
	return loginless(err) || ok && denies(known.Status) && known.Answered()
}

func denies(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusForbidden
}

// authorizedAs asks q with what the endpoint is known to want. A 401 is looked at once: its challenge may be news, the token
// may have ended early, or the password may have been replaced. Only the endpoint's own 401 counts; that of a host that a
// redirect led to could name any realm.
func (r *Registry) authorizedAs(ctx context.Context, a *account, q question, repository string, to *url.URL) (*http.Response, error) {
	e := a.endpoint
	if q.as.presented != "" && e.first {
		return r.ask(ctx, e, q, to, q.as.presented) // its 401 is the answer: another token is for the client to fetch
	}
	sent, err := r.authorization(ctx, a, q.op, repository, e.challenge())
	if err != nil {
		return nil, err
	}
	resp, err := r.askAs(ctx, a, q, to, sent)
	if !isOwn401(e, resp, err) && !errors.Is(err, errRefused) {
		return resp, err
	}
	wanted := e.challenge()
	if err == nil {
		if wanted = choose(resp.Header.Values("WWW-Authenticate")); wanted == (challenge{}) {
			return resp, nil
		}
		e.learn(wanted)
		r.tokens.drop(tokenKey{a, repository}, sent.header)
	} else if !r.another(ctx, a, sent.try) {
		return nil, err
	}
	renewed, errRenewed := r.authorization(ctx, a, q.op, repository, wanted)
	if errRenewed != nil {
		if err == nil {
			resp.Body.Close()
		}
		return nil, errRenewed
	}
	if renewed.header == sent.header { // nothing else to offer: the 401 is the answer
		r.unheard(a, renewed.try)
		return resp, err
	}
	if err == nil {
		discard(resp)
	}
	e.quotas.charge(a, q.traffic())
	return r.askAs(ctx, a, q, to, renewed)
}

// askAs is ask with an authorization, and learns what the answer says of the login in it: a 401 that asks for such a one refuses it,
// and is an error.
func (r *Registry) askAs(ctx context.Context, a *account, q question, to *url.URL, sent authorization) (*http.Response, error) {
	e := a.endpoint
	resp, err := r.ask(ctx, e, q, to, sent.header)
	switch {
	case sent.try.who == (credential.Login{}):
	case isOwn401(e, resp, err):
		return r.denied(ctx, a, q, sent, resp)
	case err != nil, resp.StatusCode >= http.StatusInternalServerError, resp.StatusCode == http.StatusTooManyRequests:
		r.unheard(a, sent.try)
	default:
		r.accepted(a, sent.try)
	}
	return resp, err
}

// denied is askAs with a 401 of the endpoint itself at hand. Some say that also of what a user may not see: which it is, is for the root
// to say, unless the login was refused before. Where that does not tell, the 401 is no word on either.
func (r *Registry) denied(ctx context.Context, a *account, q question, sent authorization, resp *http.Response) (*http.Response, error) {
	e := a.endpoint
	if choose(resp.Header.Values("WWW-Authenticate")).scheme == bearer { // it is not asked for any more
		r.unheard(a, sent.try)
		return resp, nil
	}
	root := http.StatusUnauthorized
	if !r.wasRefused(a, sent.try) {
		root = r.atRoot(ctx, e, sent.header)
	}
	if root == http.StatusOK {
		r.accepted(a, sent.try)
		return resp, nil
	}
	return nil, r.judged(a, sent.try, r.refusal(q, resp, e.origin), root)
}

// atRoot returns the status that an endpoint answers somebody with at its root; 0: none.
func (r *Registry) atRoot(ctx context.Context, e *endpoint, authorization string) int {
	q := question{kind: kindProbe, method: http.MethodGet}
	resp, err := r.send(ctx, q, e.roads.to(q.traffic(), home), e.url.JoinPath("v2/"), e.origin, authorization)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// isOwn401 reports whether an answer is a 401 of an endpoint itself.
func isOwn401(e *endpoint, resp *http.Response, err error) bool {
	return err == nil && resp.StatusCode == http.StatusUnauthorized && originOf(resp.Request.URL) == e.origin
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
	header string  // "": there is none to meet, or nobody to be
	try    attempt // with the login that the header carries itself; zero: it carries a token, or nothing
}

func (r *Registry) authorization(ctx context.Context, a *account, op, repository string, c challenge) (authorization, error) {
	switch c.scheme {
	case bearer:
		t, err := r.token(ctx, a, repository, c)
		return authorization{header: t.header()}, err
	case basic:
		try, err := r.login(ctx, a, op)
		header := basicHeader(try.who)
		if header == "" { // of nobody, or of an identity token, which is for a token server
			r.unheard(a, try)
			try = attempt{}
		}
		return authorization{header, try}, err
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
