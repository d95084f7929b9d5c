package main

const (
	kib = int64(1) << 10
	mib = kib << 10
)

// mix says how a trace is drawn. Times are in days.
//
// The sizes of layers are drawn after one of two studies, see layerSize. They find too that popularity is skewed, and that most
// layers belong to one image and a few to very many; how much so is our choice, made differently for each mix, as all else here
// is. What a trace comes to is printed with it.
type mix struct {
	name, what string
	seed       uint64

	days         float64
	pulls        int // of repositories by their popularity, less those that follow in bursts
	repositories int
	skew         float64 // exponent of their popularity
	life         float64 // mean time after which another repository takes the place of one
	rebuilt      float64 // mean time between two versions of a repository
	pinned       float64 // share of pulls that are of an older version
	single       float64 // share of pulls that are of a repository never seen again

	burst  float64 // mean number of pulls that follow each pull
	spread float64 // mean time within which they do

	clients  int     // who keep what they have pulled
	replaced float64 // mean time after which such a client starts with nothing
	fresh    float64 // share of pulls by clients that have nothing, like runners of CI

	scanEvery float64 // 0: no scans
	scanned   int     // how many repositories never seen again each scan pulls

	small bool // layers' sizes after Anwar et al. instead of Zhao et al.
}

var mixes = []mix{
	{
		name: "ci", what: "runners that start with nothing, images rebuilt daily", seed: 1,
		days: 60, pulls: 12_000, repositories: 400, skew: 0.9, life: 120, rebuilt: 2, pinned: 0.1, single: 0.03,
		burst: 2, spread: 0.2, clients: 20, replaced: 30, fresh: 0.8, small: true,
	},
	{
		name: "cluster", what: "nodes that keep what they pulled, rollouts", seed: 2,
		days: 60, pulls: 8_000, repositories: 600, skew: 1.0, life: 200, rebuilt: 7, pinned: 0.25, single: 0.02,
		burst: 4, spread: 0.1, clients: 150, replaced: 10, fresh: 0.1, small: true,
	},
	{
		name: "hub", what: "many teams before a public registry, a long tail", seed: 3,
		days: 60, pulls: 25_000, repositories: 4_000, skew: 0.8, life: 300, rebuilt: 30, pinned: 0.2, single: 0.1,
		burst: 0.5, spread: 0.5, clients: 300, replaced: 20, fresh: 0.5,
	},
	{
		name: "scan", what: "as hub, fewer teams, and a scanner that pulls what nobody else does, every three days", seed: 4,
		days: 60, pulls: 15_000, repositories: 1_500, skew: 1.0, life: 200, rebuilt: 14, pinned: 0.2, single: 0.05,
		burst: 0.5, spread: 0.5, clients: 200, replaced: 20, fresh: 0.5, scanEvery: 3, scanned: 150,
	},
}
