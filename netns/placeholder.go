// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Placeholders take the places of devices that were moved out of a namespace. An
// engine looks for its devices there, by their names: docker to count what has
// passed (docker stats), and to take a device back (docker network disconnect).
// A placeholder is down, without an address, and leads nowhere: its other end is in a
// namespace of its own, with nothing else.
type Placeholders struct {
	at, outer *Namespace
	unrouted  *Namespace // nil: none are ever added
	list      []Placeholder
	count     int // of all there were
}

// Placeholder is known by its index, which no later device of the namespace has.
type Placeholder struct {
	Index  int    `json:"index"`
	Device Device `json:"device"` // in the outer namespace
}

// NewPlaceholders returns those in one namespace for devices in another. There are
// none yet. What they lead to, as long as it is open: unrouted.
func NewPlaceholders(at, outer, unrouted *Namespace) *Placeholders {
	return &Placeholders{at: at, outer: outer, unrouted: unrouted}
}

// List returns the placeholders.
func (s *Placeholders) List() []Placeholder { return slices.Clone(s.list) }

// Restore takes over those that another process has left.
func (s *Placeholders) Restore(list []Placeholder) {
	s.list = slices.Clone(list)
	for _, i := range list { // the other ends' names must differ from any before
		s.count = max(s.count, i.Index)
	}
}

// Add leaves a placeholder for each of the devices that Move has moved, with its
// name, hardware address and MTU.
func (s *Placeholders) Add(moved []Device) (err error) {
	if len(moved) == 0 {
		return nil
	}
	at, err := handle(s.at)
	if err != nil {
		return err
	}
	defer at.Close()
	outer, err := handle(s.outer)
	if err != nil {
		return err
	}
	defer outer.Close()
	for _, d := range moved {
		index, err := s.make(d, at, outer)
		if err != nil {
			return fmt.Errorf("leave a placeholder for %s: %w", d.Name, err)
		}
		s.list = append(s.list, Placeholder{index, d})
	}
	return nil
}

func (s *Placeholders) make(d Device, at, outer *netlink.Handle) (index int, err error) {
	device, err := outer.LinkByIndex(d.Index)
	if err != nil {
		return 0, err
	}
	s.count++
	err = at.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: d.Name, MTU: device.Attrs().MTU, HardwareAddr: device.Attrs().HardwareAddr},
		PeerName:  fmt.Sprintf("end%d", s.count), PeerNamespace: netlink.NsFd(s.unrouted.Fd()),
	})
	if err != nil {
		return 0, err
	}
	made, err := at.LinkByName(d.Name)
	if err != nil {
		return 0, err
	}
	return made.Attrs().Index, nil
}

// Names returns the placeholders' names.
func (s *Placeholders) Names() []string {
	var names []string
	for _, i := range s.list {
		names = append(names, i.Device.Name)
	}
	return names
}

// Follow removes the devices whose placeholders somebody has taken away or deleted,
// and returns how many they were.
func (s *Placeholders) Follow() (removed int, err error) {
	at, err := handle(s.at)
	if err != nil {
		return 0, err
	}
	defer at.Close()
	outer, err := handle(s.outer)
	if err != nil {
		return 0, err
	}
	defer outer.Close()
	var errs []error
	s.list = slices.DeleteFunc(s.list, func(i Placeholder) bool {
		if _, err := at.LinkByIndex(i.Index); !isNoLink(err) {
			return false
		}
		removed++
		err := outer.LinkDel(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: i.Device.Index}})
		if err != nil && !errors.Is(err, unix.ENODEV) { // the other end may have gone first
			errs = append(errs, fmt.Errorf("remove %s: %w", i.Device.Name, err))
		}
		return true
	})
	return removed, errors.Join(errs...)
}

func isNoLink(err error) bool {
	var none netlink.LinkNotFoundError
	return errors.As(err, &none) || errors.Is(err, unix.ENODEV)
}

// Close removes the placeholders.
func (s *Placeholders) Close() error {
	if s.unrouted == nil {
		return nil
	}
	return s.unrouted.Close()
}
