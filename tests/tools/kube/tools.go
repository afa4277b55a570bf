//go:build tools

// Package tools pins the cluster that tests run against; see the recipe `tools` of the Makefile.
package tools

import (
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
)
