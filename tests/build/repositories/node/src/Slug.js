const slugify = require('slugify');

function slug(title) {
  return slugify(title, { lower: true, strict: true });
}

/**
 * API calls will begin at the apply() method, with the request body passed as 'input'
 */
exports.apply = function (input, cb) {
  if (typeof input === 'string') return cb(null, slug(input));
  if (Array.isArray(input)) {
    const seen = {};
    return cb(null, input.map((title) => {
      const base = slug(String(title));
      seen[base] = (seen[base] || 0) + 1;
      return seen[base] === 1 ? base : `${base}-${seen[base]}`;
    }));
  }
  if (Buffer.isBuffer(input)) return cb(null, Buffer.from(slug(input.toString('utf8'))));
  const error = new Error('send a title, or a list of titles');
  error.error_type = 'InputError';
  return cb(error);
};
