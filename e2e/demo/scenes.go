package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/entrepot/entrepot/e2e/testbed"
)

func (s *stage) firstPull(ctx context.Context) error {
	s.tell.scene(1, "The first pull is a miss: it streams through, and is kept")
	p, crossed, err := s.pullTold(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(
		check(strings.HasPrefix(p.Answers[0].Verdict(), "fwd=miss"), "the tag's verdict is %q, not a miss", p.Answers[0].Verdict()),
		check(crossed.Bytes() >= p.Bytes(), "less crossed the line than clients got: it was not a first pull"),
	); err != nil {
		return err
	}
	s.tell.held("Each body was checked against its digest, here and in entrepot.")
	return s.entrepot.Kept(ctx, p)
}

func (s *stage) secondPull(ctx context.Context) error {
	s.tell.scene(2, "The second pull is a hit: upstream is not asked at all")
	p, crossed, err := s.pullTold(ctx)
	if err != nil {
		return err
	}
	errs := []error{check(len(crossed) == 0, "%d requests crossed the line: %v", len(crossed), crossed)}
	for _, a := range p.Answers {
		errs = append(errs, check(strings.HasPrefix(a.Verdict(), "hit"), "%s: the verdict is %q, not a hit", a.Path, a.Verdict()))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	s.tell.held("The same digests, without a single request upstream.")
	return nil
}

// pullTold pulls the small image and shows every answer.
func (s *stage) pullTold(ctx context.Context) (p testbed.Pulled, crossed testbed.Traffic, err error) {
	crossed, err = s.crossing(ctx, func() error {
		p, err = s.pull(ctx, s.small)
		return err
	})
	if err != nil {
		return p, nil, err
	}
	s.tell.line("pull %s  (an index, a manifest, a config, three layers)", s.small.ByTag())
	s.tell.blank()
	s.tell.answers(s.small.Repository, p.Answers)
	s.tell.blank()
	s.tell.pair("client got", size(p.Bytes())+" in "+duration(p.Took))
	s.tell.pair("upstream", requests(crossed))
	return p, crossed, nil
}

func (s *stage) manyClients(ctx context.Context) error {
	s.tell.scene(3, "Many clients want one cold layer: it crosses the line once")
	s.tell.line("%d clients pull %s, %s each, all at once", herd, s.huge.ByTag(), size(s.huge.Bytes))
	s.tell.blank()
	pulls := make([]testbed.Pulled, herd)
	start := time.Now()
	var took time.Duration
	crossed, err := s.crossing(ctx, func() error {
		var g errgroup.Group
		for i := range pulls {
			g.Go(func() (err error) {
				pulls[i], err = s.pull(ctx, s.huge)
				return err
			})
		}
		err := g.Wait()
		took = time.Since(start)
		return err
	})
	if err != nil {
		return err
	}
	var served int64
	var firstBytes []time.Duration
	for _, p := range pulls {
		served += p.Bytes()
		firstBytes = append(firstBytes, p.Answers[len(p.Answers)-1].FirstByte)
	}
	s.tell.pair("clients got", size(served)+" in "+duration(took)+"; the layer's first byte after "+duration(slices.Max(firstBytes))+" at most")
	s.tell.pair("upstream", requests(crossed))
	alone := time.Duration(float64(served) / lineSpeed * float64(time.Second))
	s.tell.pair("without it", size(served)+" over the same line take "+duration(alone)+" at least")
	s.tell.bars(served, crossed.Bytes())
	// A twentieth more is allowed: a connection that is given up has bytes under way.
	most := s.huge.Bytes + s.huge.Bytes/20
	if err := check(crossed.Bytes() <= most, "%s crossed the line for an image of %s", size(crossed.Bytes()), size(s.huge.Bytes)); err != nil {
		return err
	}
	s.tell.held("One transfer for %d clients, each of which checked the digest.", herd)
	return nil
}

func (s *stage) upstreamDown(ctx context.Context) error {
	s.tell.scene(4, "Upstream is down: pulls are not")
	if err := s.gate.Close(); err != nil {
		return err
	}
	s.tell.line("the line is cut; pull %s again, by its tag", s.small.ByTag())
	s.tell.blank()
	p, err := s.pull(ctx, s.small)
	if err != nil {
		return err
	}
	s.tell.answers(s.small.Repository, p.Answers[:1])
	for _, name := range []string{"Age", "Warning"} {
		if v := p.Answers[0].Header.Get(name); v != "" {
			s.tell.header(name, v)
		}
	}
	s.tell.blank()
	s.tell.pair("client got", size(p.Bytes())+" in "+duration(p.Took))
	tag := p.Answers[0]
	if err := errors.Join(
		check(strings.HasPrefix(tag.Verdict(), "hit"), "the tag's verdict is %q, not a hit", tag.Verdict()),
		check(strings.HasPrefix(tag.Header.Get("Warning"), "299 "), "the tag can't be checked, but no warning says so"),
	); err != nil {
		return err
	}
	s.tell.held("The tag could not be checked upstream, and the answer says so; the content is right.")
	return nil
}
