package hsm

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"
)

func handleOf(s session) pkcs11.SessionHandle { return pkcs11.SessionHandle(s.handle) }

// newSession opens a session, logs in and finds the key.
func (k *Key) newSession() (session, error) {
	slot, err := k.slot()
	if err != nil {
		return session{}, err
	}
	handle, err := k.module.api.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION)
	if err != nil {
		return session{}, fmt.Errorf("open a session: %w", err)
	}
	s := session{handle: uint(handle)}
	if err := k.login(handle, pkcs11.CKU_USER); err != nil {
		_ = k.module.api.CloseSession(handle)
		return session{}, err
	}
	if s.key, err = k.find(handle); err != nil {
		_ = k.module.api.CloseSession(handle)
		return session{}, err
	}
	s.always = k.alwaysAuthenticates(handle, s.key)
	return s, nil
}

// slot returns the slot of the one token that fits.
func (k *Key) slot() (uint, error) {
	slots, err := k.module.api.GetSlotList(true)
	if err != nil {
		return 0, fmt.Errorf("list of slots: %w", err)
	}
	var found []uint
	for _, slot := range slots {
		info, err := k.module.api.GetTokenInfo(slot)
		if err != nil {
			continue // another token may be unwell
		}
		if fits(k.options.Token, info.Label) && fits(k.options.Serial, info.SerialNumber) {
			found = append(found, slot)
		}
	}
	if len(found) != 1 {
		return 0, fmt.Errorf("%d tokens with label %q and serial number %q among %d", len(found), k.options.Token, k.options.Serial, len(slots))
	}
	return found[0], nil
}

// fits compares with a field that tokens fill up with blanks, some with NULs.
func fits(want, field string) bool {
	return want == "" || want == strings.TrimRight(field, " \x00")
}

// login is per token, not per session: the second one hears that it is done.
func (k *Key) login(handle pkcs11.SessionHandle, user uint) error {
	err := k.module.api.Login(handle, user, string(k.options.PIN))
	var code pkcs11.Error
	if err == nil || !errors.As(err, &code) {
		return err
	}
	switch code {
	case pkcs11.CKR_USER_ALREADY_LOGGED_IN:
		return nil
	case pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE, pkcs11.CKR_PIN_EXPIRED, pkcs11.CKR_PIN_LOCKED:
		return fmt.Errorf("%w: %w", ErrPIN, err)
	}
	return fmt.Errorf("login: %w", err)
}

// find returns the handle of the one private key that fits.
func (k *Key) find(handle pkcs11.SessionHandle) (uint, error) {
	api := k.module.api
	template := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY)}
	if k.options.Label != "" {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_LABEL, k.options.Label))
	}
	if len(k.options.ID) > 0 {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_ID, k.options.ID))
	}
	if err := api.FindObjectsInit(handle, template); err != nil {
		return 0, fmt.Errorf("look for the key: %w", err)
	}
	found, _, err := api.FindObjects(handle, 2)
	if err := errors.Join(err, api.FindObjectsFinal(handle)); err != nil {
		return 0, fmt.Errorf("look for the key: %w", err)
	}
	switch len(found) {
	case 0:
		return 0, fmt.Errorf("%w: no private key with label %q and id %x in the token", ErrNoKey, k.options.Label, k.options.ID)
	case 1:
		return uint(found[0]), nil
	}
	return 0, fmt.Errorf("%w: more than one private key with label %q and id %x in the token", ErrNoKey, k.options.Label, k.options.ID)
}

// alwaysAuthenticates is false for modules that do not know the attribute.
func (k *Key) alwaysAuthenticates(handle pkcs11.SessionHandle, key uint) bool {
	got, err := k.module.api.GetAttributeValue(handle, pkcs11.ObjectHandle(key),
		[]*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_ALWAYS_AUTHENTICATE, nil)})
	return err == nil && len(got) == 1 && slices.Equal(got[0].Value, []byte{1})
}
