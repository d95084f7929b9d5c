package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/access"
	"github.com/entrepot/entrepot/upstream"
)

// SetAccess has requests that come from now on answered by another policy; nil: everybody may have everything.
func (p *Proxy) SetAccess(policy *access.Policy) {
	if policy != nil {
		for name, registry := range policy.Registries {
			if registry.Credentials || registry.Client {
				p.cache.Entrust(name)
			}
		}
	}
	p.policy.Store(policy)
}

// enter finds out who asks, and whether that one may at all.
func (p *Proxy) enter(policy *access.Policy, r *http.Request, c *call, registry string) (err error) {
	c.presents = policy.Registries[registry].Client
	c.user, c.presented, err = policy.Enter(r, c.presents)
	return err
}

// admit makes sure that who asks may have what is asked for, before the cache is asked for it: whatever is answered before that
// is the same whether there is such a thing or not. It returns the request as the cache is to see it.
func (p *Proxy) admit(policy *access.Policy, r *http.Request, c *call, registry string) (*http.Request, error) {
	t := c.target
	if t.kind == kindPing {
		return r, p.greet(policy, r, c, registry)
	}
	if t.repo.Name == "" {
		return r, nil
	}
	grant, err := policy.May(c.user, t.repo.Registry, t.repo.Name)
	switch {
	case err != nil:
		return r, err
	case grant == access.Presented:
		return p.presented(policy, r, c, !policy.Registries[registry].Credentials)
	case grant == access.Shown, grant == access.Open && p.cache.Entrusted(t.repo.Registry):
		return r, p.shown(policy, r, c)
	}
	return r, nil
}

// greet has who asks how to come in told that, where that one would not come in otherwise: podman, CRI-O and their like show what they
// have only to who has asked for it at that point, and are known by a field that dockerd does not send. dockerd leaves for the
// registry when it is asked.
func (p *Proxy) greet(policy *access.Policy, r *http.Request, c *call, registry string) error {
	if c.presents {
		return p.challenge(r.Context(), policy, cache.Repository{Registry: registry}, c)
	}
	if c.user == "" && r.Header["Authorization"] == nil && r.Header["Docker-Distribution-Api-Version"] != nil {
		return policy.Invite()
	}
	return nil
}

// shown admits who may have what upstream shows to everybody. Upstream's refusal is for the log: here all refusals are alike.
func (p *Proxy) shown(policy *access.Policy, r *http.Request, c *call) error {
	err := p.cache.Admit(r.Context(), c.target.repo, c.target.subject(), "")
	if up, ok := errors.AsType[*upstream.Error](err); ok && up.Answered() {
		return fmt.Errorf("%w: %w", policy.Hidden(c.user), err)
	}
	return err
}

// presented admits who may have what upstream shows to it. With lent, upstream is also asked with that for what is not here.
func (p *Proxy) presented(policy *access.Policy, r *http.Request, c *call, lent bool) (*http.Request, error) {
	t := c.target
	if err := p.challenge(r.Context(), policy, t.repo, c); err != nil {
		return r, err
	}
	if err := p.cache.Admit(r.Context(), t.repo, t.subject(), c.presented); err != nil {
		if up, ok := errors.AsType[*upstream.Error](err); ok && up.Answered() {
			p.metrics.refused(access.Client)
		}
		return r, err
	}
	if lent {
		r = r.WithContext(upstream.WithAuthorization(r.Context(), c.presented))
	}
	return r, nil
}

// challenge has who presents nothing told what upstream would like to see; nil: upstream likes to see nothing. Where the anonymous are
// denied, an upstream that asks nobody who it is lets nobody in, whatever is presented.
func (p *Proxy) challenge(ctx context.Context, policy *access.Policy, repo cache.Repository, c *call) error {
	stranger := c.user == "" && !policy.Anonymous
	if c.presented != "" && !stranger {
		return nil
	}
	challenge, err := p.cache.Challenge(ctx, repo)
	switch {
	case err != nil:
		return err
	case challenge == "" && stranger:
		return policy.Unknown()
	case challenge == "", c.presented != "":
		return nil
	}
	return &access.Refusal{Reason: access.Client, Challenge: challenge}
}

// subject is what upstream is asked about before a target is answered. That there are referrers to a manifest is shown with it.
func (t target) subject() string {
	switch t.kind {
	case kindBlob:
		return "blobs/" + t.ref.Digest.String()
	case kindTags:
		return "tags/list"
	default:
		return "manifests/" + t.ref.String()
	}
}

// refuse answers with an error.
func (p *Proxy) refuse(w http.ResponseWriter, c *call, err error) {
	if refused, ok := errors.AsType[*access.Refusal](err); ok {
		p.metrics.refused(refused.Reason)
	}
	e := asAPIError(err, c.target.kind)
	if up, ok := errors.AsType[*upstream.Error](err); ok && c.presents {
		e.challenge = up.Challenge
	}
	e.write(w)
}

// fromRefusal tells a client why it is refused, and nothing of what it has asked for.
func fromRefusal(r *access.Refusal) *apiError {
	e := &apiError{status: http.StatusForbidden, code: codeDenied, challenge: r.Challenge}
	if r.Challenge != "" {
		e.status, e.code = http.StatusUnauthorized, codeUnauthorized
	}
	switch {
	case r.Reason == access.Network:
		e.message = "requests from this network are not answered"
	case r.Reason == access.Password:
		e.message = "the user name or the password is wrong"
	case r.Reason == access.Pattern:
		e.message = "this repository is not among those that this user may pull from"
	case r.Challenge != "":
		e.message = "authentication required"
	case r.Reason == access.Private:
		e.status, e.code, e.message = http.StatusNotFound, codeNameUnknown, "there is no such thing here that everybody may have"
	default:
		e.message = "only known users are answered"
	}
	return e
}
