package logstore

import (
	"context"
	"errors"
	"strings"

	"pecd/pec"
)

// Policies returns what was set; see Store.
func (r *Reader) Policies(ctx context.Context, subjects ...string) ([]Policy, error) {
	out, err := r.policies(ctx, subjects)
	if err != nil {
		return nil, failure("reading policies", err)
	}
	return out, nil
}

func (r *Reader) policies(ctx context.Context, subjects []string) ([]Policy, error) {
	where, args := "", make([]any, len(subjects))
	for i, s := range subjects {
		args[i] = s
	}
	if len(subjects) > 0 {
		where = "WHERE subject IN (?" + strings.Repeat(", ?", len(subjects)-1) + ") "
	}
	rows, err := r.db.QueryContext(ctx, "SELECT subject, ordinary FROM policy "+where+"ORDER BY subject", args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Policy
	for rows.Next() {
		var p Policy
		if err := rows.Scan(&p.Subject, &p.Ordinary); err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, rows.Err()
}

// check refuses a policy that nobody would find.
func (p Policy) check() error {
	key := pec.Address(p.Subject).Key()
	if !strings.Contains(p.Subject, "@") {
		key = pec.Address("@" + p.Subject).Domain()
	}
	if p.Subject == "" || p.Subject != key {
		return errors.New("the subject of its policy is neither the key of an address nor a domain in lower case")
	}
	return nil
}

// setPolicy sets p, or removes what was set.
func (t *transaction) setPolicy(ctx context.Context, p *Policy) error {
	if p == nil {
		return nil
	}
	if p.Ordinary == "" {
		_, err := t.exec(ctx, "DELETE FROM policy WHERE subject = ?", p.Subject)
		return err
	}
	_, err := t.exec(ctx, `INSERT INTO policy (subject, ordinary) VALUES (?, ?)
		ON CONFLICT (subject) DO UPDATE SET ordinary = excluded.ordinary`, p.Subject, p.Ordinary)
	return err
}
