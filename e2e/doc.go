// Package e2e holds no code of its own: its tests put real clients (Docker, containerd, podman, skopeo, crane,
// go-containerregistry) in front of the real entrepot binary, and a real registry behind it. Others put it under pressure,
// before a registry whose content is computed: more than its disk holds, a disk that is full, read-only or damaged, and kills.
//
// They need root and a Debian machine prepared by install.sh. A client that is missing fails its test; none is
// skipped. Nothing leaves the machine: the images are made here, and the clients' way to Docker Hub is closed, so
// that a pull that succeeds was served by the mirror.
package e2e
