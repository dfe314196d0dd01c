-- See gate_pass in the migrations. One round trip, one commit.
SELECT gate_pass($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
