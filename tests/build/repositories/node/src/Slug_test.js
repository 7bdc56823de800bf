const assert = require('assert');
const { apply } = require('./Slug');

apply('Déjà vu, again!', (error, result) => {
  assert.strictEqual(error, null);
  assert.strictEqual(result, 'deja-vu-again');
});
