// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/confine"
	"openshell.ai/openshell/netns"
	"openshell.ai/openshell/proxy/ingress"
)

// Some engines put a container's network together between its creation and its
// start, in the namespace that its first process is in. Such a sandbox is made
// without a network; nothing can be started in it, for openshell-init finds no
// confinement. CompleteNetwork takes the engine's devices out, seals the namespace and
// puts the confinement there.

// admission completes a sandbox's network. It is what a container's start asks
// its sandbox for.
type admission struct {
	DNS Resolver `json:"dns"` // the container's, which the engine may have written only now
}

// Pending reports whether the network of the sandbox that a container is the first of is still to be completed.
func Pending(runDir, root, id string) bool {
	info, err := readInfo(filepath.Join(sandboxesDir(runDir), IDFor(root, id)))
	return err == nil && info.Pending
}

// CompleteNetwork completes the network of the sandbox that a container is the first of,
// if that is still to be done. resolver reads the container's resolv.conf.
func CompleteNetwork(ctx context.Context, c *config.Config, root, id string,
	resolver func(Container) (Resolver, error)) error {
	info, err := readInfo(filepath.Join(sandboxesDir(c.RunDir), IDFor(root, id)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it joined another's, or has none: then nothing starts either
	}
	if err != nil || !info.Pending || len(info.Containers) == 0 {
		return err
	}
	dns, err := resolver(info.Containers[0])
	if err != nil {
		return err
	}
	return call(ctx, c.RunDir, info, "admit", admission{dns}, nil)
}

// admit completes the sandbox's network, once. A sandbox for which that fails
// ends.
func (s *Sandbox) admit(a admission) error {
	if !s.begin() {
		return errEnding
	}
	defer s.wg.Done()
	s.applying.Lock()
	defer s.applying.Unlock()
	if s.outer != nil {
		return nil
	}
	err := s.completeNetwork(a)
	if err != nil {
		go s.Stop()
	}
	return err
}

func (s *Sandbox) completeNetwork(a admission) error {
	s.request.DNS, s.hosts = a.DNS, newHosts(a.DNS)
	servers, err := s.readNameservers()
	if err != nil {
		return err
	}
	s.nameservers = servers
	if err := s.setRules(s.rules.Load().policies); err != nil { // some go by the hosts file
		return err
	}
	if err := s.openDeferred(); err != nil {
		return err
	}
	if err := s.serveNetwork(); err != nil {
		return err
	}
	if err := confine.WriteConfinement(s.confineDir(), s.confinement(s.rules.Load().policies)); err != nil {
		return err
	}
	return s.updateInfo(func() { s.info.Outer, s.info.Pending = s.outer.ID(), false })
}

// openDeferred decides where upstream connections start, now that the engine has
// done what it wanted: in a namespace with its devices, or where the request
// says for there being none.
func (s *Sandbox) openDeferred() error {
	watcher, err := netns.Watch(s.inner)
	if err != nil {
		return err
	}
	outer, err := netns.New()
	if err != nil {
		watcher.Close()
		return err
	}
	moved, err := netns.Move(s.inner, outer, s.native, false)
	if err == nil && len(moved) == 0 && s.request.Outer.Fallback == OuterHost {
		watcher.Close()
		outer.Close()
		s.outer, err = netns.Home()
		return err
	}
	if err != nil {
		watcher.Close()
		outer.Close()
		return err
	}
	s.outer, s.lent = outer, true
	if s.request.Outer.Placeholders {
		if s.unrouted, err = netns.New(); err != nil {
			watcher.Close()
			return err
		}
	}
	s.placeholders = netns.NewPlaceholders(s.inner, outer, s.unrouted)
	s.leavePlaceholders(moved)
	s.watchInterfaces(watcher)
	return nil
}

// followEngine goes on with what an earlier supervisor of the sandbox did.
func (s *Sandbox) followEngine(placeholders []netns.Placeholder) error {
	watcher, err := netns.Watch(s.inner)
	if err != nil {
		return err
	}
	s.placeholders = netns.NewPlaceholders(s.inner, s.outer, s.unrouted)
	s.placeholders.Restore(placeholders)
	s.watchInterfaces(watcher)
	return nil
}

func (s *Sandbox) watchInterfaces(w *netns.Watcher) {
	s.wg.Go(func() { s.adoptChanges(w) })
	context.AfterFunc(s.ctx, func() { w.Close() })
}

// leavePlaceholders leaves something in the place of an engine's devices, if it will look for
// them. Without, there is a network all the same.
func (s *Sandbox) leavePlaceholders(moved []netns.Device) {
	if !s.request.Outer.Placeholders {
		return
	}
	err := s.placeholders.Add(moved)
	if err == nil && len(moved) > 0 {
		err = s.rememberPlaceholders()
	}
	if err != nil {
		s.recordError("what the engine does to the container's devices will not be followed", err)
	}
}

// settled is how long a device is left alone after its last change, before it is
// taken to be set up: engines do that in many steps.
const settled = 200 * time.Millisecond

func (s *Sandbox) rememberPlaceholders() error {
	return s.remember(entry{Placeholders: &savedPlaceholders{s.placeholders.List()}})
}

// adoptChanges does outside what an engine does inside while the workload runs.
func (s *Sandbox) adoptChanges(w *netns.Watcher) {
	for w.Changed(settled) == nil {
		s.applying.Lock()
		err := s.adoptInterfaces()
		s.applying.Unlock()
		if err != nil && s.ctx.Err() == nil {
			s.recordError("the network that the engine has changed cannot be used", err)
		}
	}
}

// adoptInterfaces removes the devices that the engine has taken back, moves those out that
// it has added, and takes over its gateway. What has been removed has made room,
// and an error with one does not keep the others. s.applying must be held.
func (s *Sandbox) adoptInterfaces() error {
	removed, removeErr := s.placeholders.Follow()
	if removed > 0 {
		removeErr = errors.Join(removeErr, s.rememberPlaceholders())
	}
	moved, moveErr := netns.Move(s.inner, s.outer, slices.Concat(s.native, s.placeholders.Names()), true)
	s.leavePlaceholders(moved)
	errs := []error{removeErr, moveErr, netns.FollowGateway(s.inner, s.outer)}
	if (removed > 0 || len(moved) > 0) && s.ingress != nil { // without it the sandbox is ending
		errs = append(errs, s.renewAddresses())
	}
	return errors.Join(errs...)
}

// renewAddresses lends the workload the addresses that its outer namespace has
// now.
func (s *Sandbox) renewAddresses() error {
	own, err := s.ownAddresses()
	if err != nil {
		return err
	}
	if _, err := netns.Seal(s.inner, own); err != nil {
		return err
	}
	gone := slices.DeleteFunc(s.own, func(a netip.Addr) bool { return slices.Contains(own, a) })
	s.own = own
	if err := netns.Withdraw(s.inner, gone); err != nil {
		return err
	}
	if err := netns.Intercept(s.inner, own); err != nil {
		return err
	}
	return s.ingress.Renew(own)
}

// startIngress brings in what arrives in a namespace that is the engine's or has
// its devices.
func (s *Sandbox) startIngress() error {
	if !s.lent {
		return nil
	}
	r, err := ingress.Start(s.ctx, s.outer, s.inner, s.own, s.ingressLimits())
	if err != nil {
		return err
	}
	s.ingress = r
	s.wg.Go(r.Wait)
	return nil
}
